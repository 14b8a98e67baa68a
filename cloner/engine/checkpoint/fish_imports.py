"""Importing fish-speech without what it logs, warns of and imports but does not use here.

Its dependency audiotools imports torchaudio, which may not load; `transformers` and tensorboard would take two seconds.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

UNUSED = {"transformers": "AutoTokenizer", "torch.utils.tensorboard": "SummaryWriter"}
"""Modules that fish-speech imports for one member, which the code that runs here never calls."""


@contextmanager
def no_warnings() -> Iterator[None]:
    """Suppress the deprecation warnings of upstream's dependencies: users can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def importing_fish_speech() -> Iterator[None]:
    """Around imports of fish-speech: no logging, no warnings, and empty modules in place of those it does not need."""
    logger.disable("fish_speech")
    _replace_broken_torchaudio()
    names = {name: member for name, member in UNUSED.items() if name not in sys.modules}
    for name, member in names.items():
        _add_empty_module(name, **{member: None})
    try:
        with no_warnings():
            yield
    finally:
        for name in names:
            del sys.modules[name]


def _replace_broken_torchaudio() -> None:
    """Let audiotools import if torchaudio does not load: it needs it for effects that nothing here uses."""
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):  # OSError: its wheel is linked against CUDA libraries that a CPU torch lacks
        _add_empty_module("torchaudio")


def _add_empty_module(name: str, **members: object) -> None:
    """Let ``import name`` succeed without the package."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    module.__dict__.update(members)
    sys.modules[name] = module
