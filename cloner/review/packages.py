"""The packages that only the review of takes needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from cloner.errors import MissingPackage

MODULES = ("librosa", "onnxruntime", "rapidfuzz", "resemblyzer", "scipy", "speechmos", "torch", "webrtcvad")
"""What the models import, directly or not, besides the recogniser."""

WORDS_MODULES = ("faster_whisper", "whisper_normalizer")
"""What comparing words imports."""

INSTALL = "run `make setup`, or `pip install '.[review]'` and `pip install --no-deps -r ops/review.txt` in a checkout"


def require_packages(*, words: bool) -> None:
    """Raise `MissingPackage` unless all packages are there, and with `words` those of the recogniser. Imports none."""
    modules = (*MODULES, *(WORDS_MODULES if words else ()))
    if missing := [name for name in modules if find_spec(name) is None]:
        raise MissingPackage(f"packages that the review of takes needs are missing ({', '.join(missing)}): {INSTALL}")


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
            f"a package that the review of takes needs is missing or does not fit ({error}): {INSTALL}"
        ) from error
