"""The process that kernels' processes are forked from, and those."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import psutil
import pytest

from cloner.engine.kernel_processes import Child, ForkServer, Mode
from cloner.engine.kernels.codec import CodecKernels

from .kernel_plans import plan

pytestmark = pytest.mark.slow

LIMIT_S = 100.0

CODEC_KERNELS = {each.name for each in fields(CodecKernels)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ForkServer]:
    """One whose kernels are compiled, as a worker starts it, which has a share of the cores."""
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled"))
    for library in ("MKL", "OMP", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "8")
    server = ForkServer()
    yield server
    server.close()


def test_the_codecs_kernels_compile_in_children_of_a_process_of_one_thread(server: ForkServer) -> None:
    """A child of a process with a pool of threads has the pool, but not its threads, and waits for them for ever."""
    families = server.prepare(replace(plan(), codec=True).json(), LIMIT_S)
    (process,) = (each for each in psutil.Process().children() if "cloner.engine.kernel_child" in each.cmdline())
    assert process.num_threads() == 1
    child = Child(server, Mode.COMPILE)
    child.ready(LIMIT_S)
    cases = {family: case for case, family in families.items() if family in CODEC_KERNELS}
    assert cases.keys() == CODEC_KERNELS
    assert {family: child.ask(case, LIMIT_S) for family, case in cases.items()} == {family: {} for family in cases}
    child.close()
