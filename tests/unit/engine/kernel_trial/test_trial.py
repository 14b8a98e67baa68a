"""The trial of kernels in child processes that die, hang and lie."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import psutil
import pytest

from cloner.engine.kernel_trial.processes import Child
from cloner.engine.kernel_trial.trial import Job, Trial
from cloner.engine.kernels.step.kernel_set import KernelSet
from cloner.engine.memory import GB
from cloner.events import Event
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.unit.engine.kernel_trial.plans import plan

pytestmark = pytest.mark.slow

CASES = "cloner.engine.kernel_trial.step_cases"

TWINS = "module.StepCases.__init__.__defaults__ = (module.TWINS,)\n"
"""A CPU has no kernels: their twins are compared with themselves."""


@pytest.fixture
def patch_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModulePatcher:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled"))
    return ModulePatcher(tmp_path / "patches", monkeypatch)


def trial(limit_s: float = 250.0, stop: threading.Event | None = None) -> Trial:
    return Trial(Job(plan().json(), limit_s, compilers=1, checkers=2), stop or threading.Event())


def test_kernels_are_compiled_without_a_gpu_and_pass(
    patch_module: ModulePatcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    patch_module(CASES, TWINS)
    findings = trial().run()
    assert (findings.failed, findings.unfinished) == ({}, "")
    assert findings.passed == {
        "embed",
        "linear",
        "attend_prompt",
        "attend_decode",
        "attend_fast",
        "sample_first",
        "sample_next",
    }
    compiled = {path.stem for path in (tmp_path / "compiled").rglob("*.cubin")}
    assert compiled >= {"embed_kernel", "linear_kernel", "store_prompt_kernel", "attend_prompt_kernel"}


FAULTS = """
import ctypes, os, sys, threading
from dataclasses import replace

def compile(self, name):
    match self.families[name]:
        case "embed":
            raise ValueError("no such\\ninstruction")
        case "linear":
            print("WSLowerToken.cpp: Assertion failed", file=sys.stderr, flush=True)
            os.abort()
        case "attend_prompt":
            threading.Event().wait()

def wrong(qkv, out, *arguments, **options):
    module.TWINS.attend_fast(qkv, out, *arguments, **options)
    out.mul_(1.1)

def illegal(*arguments, **options):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

tried = replace(module.TWINS, attend_fast=wrong, sample_first=illegal, sample_next=lambda *a, **o: os._exit(3))
module.StepCases.__init__.__defaults__ = (tried,)
module.StepCases.compile = compile
"""


def test_a_process_that_dies_or_hangs_is_the_verdict_of_its_kernel_and_the_others_go_on(
    patch_module: ModulePatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Child.ask

    def ask_briefly(child: Child, case: str, limit_s: float) -> dict[str, str]:
        """What hangs gets 1 s, what is only slow as long as it takes."""
        return ask(child, case, 1.0 if case.startswith("attend_prompt ") else limit_s)

    monkeypatch.setattr(Child, "ask", ask_briefly)
    monkeypatch.setattr("cloner.engine.kernel_trial.trial.CASE_S", 250.0)
    patch_module(CASES, FAULTS)
    findings = trial(limit_s=1000.0).run()
    reasons = dict(findings.failed)
    assert "off torch's" in reasons.pop("attend_fast")
    assert reasons == {
        "embed": "does not compile: ValueError: no such instruction",
        "linear": "its process ended with signal 6 (Aborted): WSLowerToken.cpp: Assertion failed",
        "attend_prompt": "it has given no answer for 1 s",
        "sample_first": "RuntimeError: CUDA error: an illegal memory access was encountered",
        "sample_next": "its process ended with status 3",
    }
    assert (findings.passed, findings.unfinished) == ({"attend_decode"}, "")


def test_a_case_that_is_late_only_once_is_not_its_kernels_failure(
    patch_module: ModulePatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Child.ask
    late: list[str] = []

    def ask_briefly(child: Child, case: str, limit_s: float) -> dict[str, str]:
        if not case.startswith("attend_prompt ") or late:
            return ask(child, case, limit_s)
        late.append(case)
        return ask(child, case, 1.0)

    monkeypatch.setattr(Child, "ask", ask_briefly)
    monkeypatch.setattr("cloner.engine.kernel_trial.trial.CASE_S", 250.0)
    wait = "self.families[name] == 'attend_prompt' and once('late') and threading.Event().wait()"
    patch_module(CASES, TWINS + f"import threading\nmodule.StepCases.compile = lambda self, name: {wait}\n")
    findings = trial(limit_s=1000.0).run()
    assert len(late) == 1
    assert (findings.failed, findings.unfinished) == ({}, "")
    assert findings.passed == {each.name for each in fields(KernelSet)}


OUTER_FAULTS = """
from dataclasses import replace

def exhausted(*arguments, **options):
    raise MemoryError("no room")

def compile(self, name):
    if self.families[name] == "attend_fast":
        raise OSError(28, "No space left on device")

tried = replace(module.TWINS, attend_prompt=exhausted, sample_next=lambda *a, **o: die())
module.StepCases.__init__.__defaults__ = (tried,)
module.StepCases.compile = compile
"""


def test_what_memory_the_disk_or_a_signal_ends_is_no_kernels_fault(patch_module: ModulePatcher) -> None:
    patch_module(CASES, OUTER_FAULTS)
    findings = trial().run()
    assert findings.failed == {}
    assert findings.unfinished in {
        "MemoryError: no room",
        "OSError: [Errno 28] No space left on device",
        "its process ended with signal 9 (Killed)",
    }
    assert findings.passed == {"embed", "linear", "attend_decode", "sample_first"}


ONCE_FULL = (
    TWINS
    + """
def exhausted(*arguments, **options):
    if once("memory"):
        raise MemoryError("no room")
    module.TWINS.attend_prompt(*arguments, **options)

def compile(self, name):
    if self.families[name] == "attend_fast" and once("disk"):
        raise OSError(28, "No space left on device")

module.StepCases.__init__.__defaults__ = (replace(module.TWINS, attend_prompt=exhausted),)
module.StepCases.compile = compile
"""
)


def test_what_memory_or_the_disk_has_ended_is_tried_once_more(
    patch_module: ModulePatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    patch_module(CASES, "from dataclasses import replace\n" + ONCE_FULL)
    findings = trial().run()
    assert (findings.failed, findings.unfinished) == ({}, "")
    assert findings.passed == {each.name for each in fields(KernelSet)}
    (line,) = capsys.readouterr().err.splitlines()
    reasons = ("MemoryError: no room", "OSError: [Errno 28] No space left on device")
    assert line in {Event.KERNELS_TRIED_AGAIN.line(reason=reason) for reason in reasons}


@pytest.mark.parametrize(("free", "checkers"), [(0, 1), (5 * GB, 1), (8 * GB, 2), (10 * GB, 3), (24 * GB, 4)], ids=str)
def test_as_many_children_compare_as_the_gpu_has_memory_for(
    free: int, checkers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner.engine.kernel_trial.trial.usable_cores", lambda: 64)
    assert Job.on_card("", 1.0, free) == Job("", 1.0, 16, checkers)


def test_the_end_of_the_process_that_children_are_forked_from_is_no_kernels_fault(patch_module: ModulePatcher) -> None:
    patch_module(CASES, TWINS + "module.StepCases.compile = lambda s, n: os.kill(os.getppid(), signal.SIGKILL)\n")
    findings = trial().run()
    assert (findings.passed, findings.failed) == (set(), {})
    assert "signal 9 (Killed)" in findings.unfinished


def test_the_process_that_children_are_forked_from_is_started_once_more_and_its_end_is_logged(
    patch_module: ModulePatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    lose = "once('lost') and os.kill(os.getppid(), signal.SIGABRT)"
    patch_module(CASES, TWINS + f"module.StepCases.compile = lambda s, n: {lose}\n")
    findings = trial().run()
    assert (findings.failed, findings.unfinished) == ({}, "")
    assert findings.passed == {each.name for each in fields(KernelSet)}
    reason = "its process ended with signal 6 (Aborted)"
    assert capsys.readouterr().err.splitlines() == [Event.KERNEL_FORK_SERVER_LOST.line(reason=reason)]


def test_children_that_cannot_start_leave_everything_untried(patch_module: ModulePatcher) -> None:
    patch_module(CASES, "raise ImportError('no such library')\n")
    findings = trial().run()
    assert (findings.passed, findings.failed) == (set(), {})
    assert "no such library" in findings.unfinished
    assert "could be started" in findings.unfinished


def test_a_trial_ends_in_time_and_blames_no_kernel_for_that(patch_module: ModulePatcher) -> None:
    patch_module(CASES, TWINS + "import threading\nmodule.StepCases.compile = lambda s, n: threading.Event().wait()\n")
    findings = trial(limit_s=20.0).run()
    assert (findings.passed, findings.failed) == (set(), {})
    assert findings.unfinished


def test_a_trial_that_is_stopped_waits_for_no_case(
    patch_module: ModulePatcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, stop = tmp_path / "begun", threading.Event()
    hang = f"(open({str(begun)!r}, 'w').close(), threading.Event().wait())"
    patch_module(CASES, TWINS + f"import threading\nmodule.StepCases.compile = lambda s, n: {hang}\n")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(trial(limit_s=1000.0, stop=stop).run)
        eventually(begun.exists, timeout_s=200)
        stop.set()
        findings = running.result(timeout=50)  # less than the 60 s that a case gets
    assert (findings.passed, findings.failed) == (set(), {})
    assert capsys.readouterr().err == "", "it is not tried again"


def test_children_end_with_the_process_that_tries(patch_module: ModulePatcher) -> None:
    patch_module(CASES, TWINS + "import threading\nmodule.StepCases.compile = lambda s, n: threading.Event().wait()\n")
    code = "from tests.unit.engine.kernel_trial.test_trial import trial\ntrial().run()\n"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[4])
    worker = psutil.Process(process.pid)

    def forked() -> list[psutil.Process]:
        """Those that compile and those that compare."""
        return [child for server in worker.children() for child in server.children()]

    eventually(lambda: len(forked()) == 3, timeout_s=200)
    children = worker.children(recursive=True)
    process.kill()
    process.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []
