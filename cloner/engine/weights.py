"""Weights from a checkpoint's files, into models that were built without any."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from cloner.errors import LoadFailed


def check_device(device: torch.device) -> None:
    """Raise `LoadFailed` if `device` is a GPU and torch sees none."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LoadFailed(
            f"torch {torch.__version__} finds no GPU in this process: install a CUDA build of torch and check"
            " the driver with `nvidia-smi`, or start CPU workers"
        )


class _Unfilled(TorchFunctionMode):
    """Leaves out what models compute for tensors whose values come from a file, or are made again after it.

    On the ``meta`` device that is no arithmetic, but torch would import its compiler to find out the shapes, which
    takes longer than all the rest of a small model's load.
    """

    SAME_SHAPE = frozenset({Tensor.normal_, Tensor.mul, torch.tril})
    INITIALISERS = frozenset(
        function for name, function in vars(init).items() if name.endswith("_") and not name.startswith("_")
    )

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in self.INITIALISERS:
            return kwargs["tensor"]  # the way in which `torch.nn.init` asks
        if function in self.SAME_SHAPE:
            return args[0]
        if function is torch._weight_norm:
            return args[0].detach()
        if function is torch.norm_except_dim:
            weight, _power, kept = args
            return weight.new_empty([size if dim == kept else 1 for dim, size in enumerate(weight.shape)])
        if function is torch.arange:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """Models that are built inside allocate nothing: they are on the ``meta`` device."""
    with torch.device("meta"), _Unfilled():
        yield


def fill(model: Any, path: Path, prefix: str, rebuilt: tuple[str, ...] = ()) -> None:
    """Give a model on the ``meta`` device the weights in `path`. As in upstream, extra ones are passed over.

    Raises `LoadFailed` if one is missing, other than those whose last name is in `rebuilt`.
    """
    weights = _read_weights(path, prefix)
    with read_as(path, "weights for this configuration"):
        missing, _unexpected = model.load_state_dict(weights, strict=False, assign=True)
    missing = [name for name in missing if not name.endswith(rebuilt)]
    if missing:
        raise LoadFailed(f"{path} lacks weights that its configuration asks for: {missing[0]}, {len(missing)} in all")


def _read_weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors in `path`, mapped. Upstream's training wraps them in "state_dict" and under `prefix`."""
    try:
        weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        raise LoadFailed(f"{path} holds more than weights, and loading it could run a program: refused") from None
    except RuntimeError as error:
        raise LoadFailed(f"{path} is no whole file of PyTorch weights: fetch it again, it may be cut short") from error
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read: {error.strerror or error}") from error
    if isinstance(weights, dict):
        weights = weights.get("state_dict", weights)
    if not isinstance(weights, dict):
        raise LoadFailed(f"{path} holds a {type(weights).__name__}, and a table of weights is needed")
    wrapped = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return wrapped or weights


def moved(model: Any, device: torch.device, precision: torch.dtype) -> Any:
    """The model on `device`, with weights of its own, ready to run."""
    for weight in model.parameters():
        if (weight.device, weight.dtype) == (device, precision):
            # Nothing below would copy it, and mapped weights change under a running worker, or kill it, when
            # somebody writes another checkpoint over the file.
            weight.data = weight.data.clone()
    return model.eval().requires_grad_(False).to(device=device, dtype=precision)


@contextmanager
def read_as(path: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into a `LoadFailed` of one line."""
    try:
        yield
    except LoadFailed:
        raise
    except Exception as error:  # a broken file makes upstream's readers raise anything
        reason = " ".join([type(error).__name__, *str(error).split()])[:300]
        raise LoadFailed(f"{path} cannot be read as {what} ({reason})") from error
