"""Whether Triton can compile the kernels on this machine."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

COMPILERS = ("gcc", "clang")
"""C compilers that Triton takes, unless ``CC`` names another: it builds its interface to the GPU's driver."""


def missing_for_kernels() -> str | None:
    """What Triton lacks here, as a phrase; None if it can compile kernels."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    named = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([named] if named else COMPILERS)):
        return f"there is no C compiler ({named or ', '.join(COMPILERS)})"
    return None
