"""What Triton needs to compile kernels."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from cloner.engine.kernel_trial import support
from cloner.engine.kernel_trial.support import missing_for_kernels


@pytest.fixture(autouse=True)
def _only_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Triton is installed, and there is no program at all."""
    monkeypatch.setattr(support, "find_spec", lambda _name: importlib.util.find_spec("os"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)


def make_program(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_a_machine_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for_kernels() == "there is no C compiler (gcc, clang)"
    monkeypatch.setenv("CC", str(tmp_path / "my-cc"))
    make_program(tmp_path / "gcc")
    make_program(tmp_path / "cc")
    assert missing_for_kernels() == f"there is no C compiler ({tmp_path / 'my-cc'})"


@pytest.mark.parametrize("compiler", ["clang", "gcc"])
def test_any_compiler_that_triton_looks_for_will_do(tmp_path: Path, compiler: str) -> None:
    make_program(tmp_path / compiler)
    assert missing_for_kernels() is None


def test_the_compiler_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(tmp_path / "my-cc")
    monkeypatch.setitem(os.environ, "CC", str(tmp_path / "my-cc"))
    assert missing_for_kernels() is None


def test_a_machine_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "find_spec", lambda _name: None)
    assert missing_for_kernels() == "the package triton is not installed"
