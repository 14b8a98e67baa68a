"""The packages that only the review of takes needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cloner.errors import MissingPackage


@contextmanager
def review_packages() -> Iterator[None]:
    """Turn a failed import of a model's package into a `MissingPackage` with how to install it.

    Deprecation warnings of these packages are suppressed: users can do nothing about them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise MissingPackage(
            f"a package that the review of takes needs is missing or does not fit ({error}): run `make setup`, or"
            " `pip install '.[review]'` and `pip install --no-deps -r ops/review.txt`"
        ) from error
