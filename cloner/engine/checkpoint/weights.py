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
from cloner.validation import shown

LEAST_CAPABILITY = (8, 0)
"""Compute capability from which on a GPU computes in bfloat16, the precision of text2semantic on a GPU (CUDA C++
Programming Guide, arithmetic instructions per compute capability)."""


def check_device(device: torch.device) -> None:
    """Raise `LoadFailed` if `device` is a GPU and torch sees none, or one that does not compute in bfloat16."""
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise LoadFailed(
            f"torch {torch.__version__} finds no GPU in this process: install a CUDA build of torch and check"
            " the driver with `nvidia-smi`, or start CPU workers"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        raise LoadFailed(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]} and no"
            " bfloat16, and 8.0 or newer is needed (Ampere, such as A100 or RTX 30): leave this GPU out of CLONER_GPUS,"
            " or start CPU workers"
        )


class _SkipInitialisation(TorchFunctionMode):
    """Skips operations on tensors whose values are read from a file or computed again afterwards.

    On the ``meta`` device they do no arithmetic, but torch would import its compiler to infer the shapes, which takes
    longer than all the rest of a small model's load.
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
            return kwargs["tensor"]  # `torch.nn.init` passes it by name
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
    """Models that are built within this context are on the ``meta`` device and allocate nothing."""
    with torch.device("meta"), _SkipInitialisation():
        yield


def load_weights(model: Any, path: Path, weights: dict[str, Tensor], rebuilt: tuple[str, ...] = ()) -> None:
    """Load the `weights` of `path` into a model on the ``meta`` device. As in upstream, extra weights are ignored.

    Raises `LoadFailed` if a weight is missing, unless its last name is in `rebuilt`.
    """
    with reading(path, "weights for this configuration"):
        missing, _unexpected = model.load_state_dict(weights, strict=False, assign=True)
    missing = [name for name in missing if not name.endswith(rebuilt)]
    if missing:
        raise LoadFailed(f"{path} lacks weights that its configuration asks for: {missing[0]}, {len(missing)} in all")


def read_weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors in `path`, memory-mapped. Upstream's training puts them under "state_dict" and adds `prefix`.

    Raises `LoadFailed`.
    """
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
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            what = f"under {shown(name)} a {type(tensor).__name__}"
            raise LoadFailed(f"{path} holds {what}, and tensors under names are needed")
    wrapped = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return wrapped or weights


def place(model: Any, device: torch.device, precision: torch.dtype) -> Any:
    """Move the model to `device`, with a copy of its weights, ready to run."""
    for weight in model.parameters():
        if (weight.device, weight.dtype) == (device, precision):
            # `to` would not copy it, and if the file is overwritten, mapped weights change under a running worker, or
            # kill it.
            weight.data = weight.data.clone()
    return model.eval().requires_grad_(False).to(device=device, dtype=precision)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn any error while `path` is read into a `LoadFailed` of one line."""
    try:
        yield
    except LoadFailed:
        raise
    except Exception as error:  # upstream's readers raise all kinds of errors at a broken file
        reason = " ".join([type(error).__name__, *str(error).split()])[:300]
        raise LoadFailed(f"{path} cannot be read as {what} ({reason})") from error
