"""The packages that only a worker needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloner.errors import MissingPackage


@contextmanager
def worker_packages() -> Iterator[None]:
    """Turn a failed import of torch, fish-speech or their dependencies into a `MissingPackage` with how to install."""
    try:
        yield
    except ImportError as error:
        raise MissingPackage(
            f"a package that a worker needs is missing or does not fit ({error}): run `make setup`, or"
            " `pip install '.[worker]'` and `pip install --no-deps -r ops/fish-speech.txt`"
        ) from error
