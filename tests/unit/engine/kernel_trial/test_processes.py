"""The process that kernels' processes are forked from, and those."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from cloner.engine.kernel_trial import processes
from cloner.engine.kernel_trial.processes import Child, ChildLostError, ForkServer, Mode
from cloner.engine.kernels.codec.kernel_set import CodecKernels
from tests.support.module_patches import ModulePatcher
from tests.unit.engine.kernel_trial.plans import plan

pytestmark = pytest.mark.slow

LIMIT_S = 100.0

CODEC_KERNELS = {each.name for each in fields(CodecKernels)}

CASES = "cloner.engine.kernel_trial.step_cases"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a worker, which has a share of the cores; kernels are compiled."""
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled"))
    for library in ("MKL", "OMP", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "8")


@pytest.fixture
def patch_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModulePatcher:
    return ModulePatcher(tmp_path / "patches", monkeypatch)


def process_of_server() -> psutil.Process:
    (process,) = (each for each in psutil.Process().children() if "cloner.engine.kernel_trial.child" in each.cmdline())
    return process


def test_the_codecs_kernels_compile_in_children_of_a_process_of_one_thread() -> None:
    """A child of a process with a pool of threads has the pool, but not its threads, and waits for them for ever."""
    with closing(ForkServer()) as server:
        families = server.prepare(replace(plan(), codec=True).json(), LIMIT_S)
        assert process_of_server().num_threads() == 1
        cases = {family: case for case, family in families.items() if family in CODEC_KERNELS}
        assert cases.keys() == CODEC_KERNELS
        with closing(Child(server, Mode.COMPILE)) as child:
            child.ready(LIMIT_S)
            assert {family: child.ask(case, LIMIT_S) for family, case in cases.items()} == {key: {} for key in cases}


def test_a_child_ends_as_itself_even_if_it_cannot_print(patch_module: ModulePatcher, tmp_path: Path) -> None:
    """It does nothing of what the fork server would do at its exit."""
    left = tmp_path / "left"
    patch_module(CASES, f"import atexit\natexit.register(os.mkdir, {str(left)!r})\n")
    ours, theirs = Pipe()
    with closing(ForkServer()) as server, Path("/dev/full").open("wb") as full, theirs:
        server.prepare(plan().json(), LIMIT_S)
        ours.close()  # so that the child raises an error
        child = server.fork(Mode.COMPILE, theirs.fileno(), full.fileno())
        assert server.status(child, LIMIT_S) == 1
        assert not left.exists()


def test_a_child_that_is_lost_is_reported_with_its_last_words(patch_module: ModulePatcher) -> None:
    """Whichever stream it has printed them to."""
    patch_module(CASES, "module.StepCases.compile = lambda s, n: print('of', n) or os.abort()\n")
    with closing(ForkServer()) as server:
        (name, *_) = server.prepare(plan().json(), LIMIT_S)
        with closing(Child(server, Mode.COMPILE)) as child:
            child.ready(LIMIT_S)
            with pytest.raises(ChildLostError, match=re.escape(f"signal 6 (Aborted): of {name}")):
                child.ask(name, LIMIT_S)


def test_a_fork_server_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "QUIT_S", 0.1)
    with closing(ForkServer()) as server, ThreadPoolExecutor(1) as pool:
        server.prepare(plan().json(), LIMIT_S)
        process_of_server().suspend()
        forked = pool.submit(Child, server, Mode.COMPILE)
        with pytest.raises(TimeoutError):
            forked.result(1)
        process_of_server().resume()
        with closing(forked.result(LIMIT_S)) as child:
            child.ready(LIMIT_S)
