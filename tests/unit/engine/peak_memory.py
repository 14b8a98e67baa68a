"""The most memory that a computation takes at a time, counted without computing: it works on the ``meta`` device."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the memory of tensors that are made while it is entered, as long as a tensor or a view of it lives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        """Bytes."""
        self._now = 0
        self._users: dict[int, int] = {}
        """Tensors that live, by the storage that they are views of."""

    def __torch_dispatch__(
        self, operation: Any, _types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        made = operation(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            storage, size = _storage(tensor), tensor.untyped_storage().nbytes()
            if storage not in self._users:
                if storage in given:
                    continue  # it was there before
                self._users[storage] = 0
                self._now += size
                self.peak = max(self.peak, self._now)
            self._users[storage] += 1
            weakref.finalize(tensor, self._dropped, storage, size)
        return made

    def _dropped(self, storage: int, size: int) -> None:
        self._users[storage] -= 1
        if not self._users[storage]:
            del self._users[storage]
            self._now -= size


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _storage(tensor: Tensor) -> int:
    storage: int = tensor.untyped_storage()._cdata
    return storage
