"""Verdicts on kernels: tried once, remembered, tried again when anything changes that they depend on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cloner.engine.kernel_trial import check
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.kernel_trial.check import (
    CODEC_KERNELS,
    STEP_KERNELS,
    CheckedKernels,
    EngineSetup,
    identify,
    make_plan,
)
from cloner.engine.kernel_trial.check import (
    check_kernels as check_until_stopped,
)
from cloner.engine.kernel_trial.trial import Findings, Job
from cloner.engine.kernels.codec import kernel_set as codec_set
from cloner.engine.kernels.step import kernel_set as step_set
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.memory import GB
from cloner.errors import LoadFailed
from cloner.events import Event


def check_kernels(setup: EngineSetup, cache: KernelCache) -> CheckedKernels:
    return check_until_stopped(setup, cache, threading.Event())


ALL = {*STEP_KERNELS, *CODEC_KERNELS}


class Trials:
    """Stands in for trials; what one finds is set by the test."""

    def __init__(self) -> None:
        self.count = 0
        self.findings = Findings(passed=ALL)
        self.during: Callable[[], object] = lambda: None

    def __call__(self, job: Job, _stop: threading.Event) -> Any:
        assert json.loads(job.plan)["step"]["slots"] > 0
        self.count += 1
        return SimpleNamespace(run=self._run)

    def _run(self) -> Findings:
        self.during()
        return self.findings


@pytest.fixture
def card() -> SimpleNamespace:
    return SimpleNamespace(name="NVIDIA GeForce RTX 4090", major=8, minor=9, shared_memory_per_block_optin=99 * 1024)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, card: SimpleNamespace) -> Trials:
    trials = Trials()
    monkeypatch.setattr(check, "Trial", trials)
    monkeypatch.setattr(check, "free_bytes", lambda _device: 24 * GB)
    monkeypatch.setattr(check, "_driver", lambda: "580.159.04")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    return trials


@pytest.fixture
def setup(tiny: Path) -> EngineSetup:
    return EngineSetup(tiny, torch.device("cuda"), torch.bfloat16, 8, deterministic=False, resampling=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # it is set by the cache, and is set back by this
    return KernelCache(tmp_path / "kernels", tmp_path / "out", 60.0)


def verdict_file(cache: KernelCache) -> Path:
    (path,) = cache.folder.glob("*.json")
    return path


def test_kernels_are_tried_at_the_first_start_only(
    trials: Trials, setup: EngineSetup, cache: KernelCache, capsys: pytest.CaptureFixture[str]
) -> None:
    first = check_kernels(setup, cache)
    assert (first.step, first.codec, first.warning) == (step_set.TRITON, codec_set.TRITON, "")
    assert capsys.readouterr().err.strip() == Event.KERNELS_TRIED.line(limit_s=60.0)
    assert check_kernels(setup, cache) == first
    assert trials.count == 1
    assert capsys.readouterr().err == "", "the second start only reads the verdict"


def test_twins_take_the_place_of_what_fails_at_every_start_with_one_warning(
    trials: Trials, setup: EngineSetup, cache: KernelCache, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"linear": "its results are 1.0e-01 off torch's", "gate": "does not compile: ValueError: no"}
    trials.findings = Findings(ALL - failed.keys(), failed)
    for _ in range(2):
        checked = check_kernels(setup, cache)
        assert checked.step == replace(step_set.TRITON, linear=step_set.TWINS.linear)
        assert checked.codec == replace(codec_set.TRITON, gate=codec_set.TWINS.gate)
        named = "gate: does not compile: ValueError: no; linear: its results are 1.0e-01 off torch's"
        assert checked.warning == Event.KERNELS_REPLACED.line(kernels=named)
        assert capsys.readouterr().err.splitlines()[-1] == checked.warning
    assert trials.count == 1


@pytest.mark.parametrize("source", ["kernels/step/linear.py", "token_rows/token_step.py", "codec/ragged.py"])
def test_a_verdict_depends_on_all_sources_of_the_engine(
    source: str, trials: Trials, setup: EngineSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = shutil.copytree(check.ENGINE, tmp_path / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(check, "ENGINE", sources)
    before = identify(setup)
    assert (sources / source).exists()
    with (sources / source).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert identify(setup)["sources"] != before["sources"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "NVIDIA L40S"),
        ("minor", 6),
        ("_driver", "590.1"),
        ("version", "3.8.0"),
        ("_digest", "other sources"),
        ("slots", 9),
        ("deterministic", True),
        ("precision", torch.float16),
    ],
)
def test_another_card_driver_triton_source_or_model_is_tried_anew(
    trials: Trials,
    setup: EngineSetup,
    cache: KernelCache,
    card: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: Any,
) -> None:
    check_kernels(setup, cache)
    if name in {"name", "minor"}:
        setattr(card, name, value)
    elif hasattr(setup, name):
        setup = replace(setup, **{name: value})
    else:
        monkeypatch.setattr(check, name, lambda *_: value)
    check_kernels(setup, cache)
    check_kernels(setup, cache)
    assert trials.count == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda text: text.replace("4090", "3090"),
        lambda text: text.replace('"failed": {}', '"failed": {"no such kernel": ""}'),
        lambda text: text.replace('"failed": {}', '"failed": {"linear": 1}'),
    ],
)
def test_a_damaged_verdict_is_none(
    trials: Trials, setup: EngineSetup, cache: KernelCache, damage: Callable[[str], str]
) -> None:
    check_kernels(setup, cache)
    path = verdict_file(cache)
    whole = path.read_text()
    path.write_text(damage(whole))
    check_kernels(setup, cache)
    assert trials.count == 2
    assert path.read_text() == whole


def test_what_could_not_be_tried_is_not_used_and_tried_again_at_the_next_start(
    trials: Trials, setup: EngineSetup, cache: KernelCache
) -> None:
    trials.findings = Findings({"embed"}, {"linear": "its process ended"}, "OutOfMemoryError: no room")
    checked = check_kernels(setup, cache)
    assert checked.step == step_set.TWINS.__class__(
        step_set.TRITON.embed, *(getattr(step_set.TWINS, name) for name in STEP_KERNELS[1:])
    )
    assert "linear: its process ended" in checked.warning
    assert "attend_fast: not tried, OutOfMemoryError: no room" in checked.warning
    assert "convolve" not in checked.warning, "this codec has another size, and uses no kernels"
    trials.findings = Findings(passed=ALL)
    assert check_kernels(setup, cache).warning == ""
    assert trials.count == 2


def test_a_verdict_that_cannot_be_written_is_used_and_said(
    trials: Trials,
    setup: EngineSetup,
    cache: KernelCache,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert check_kernels(setup, cache).step == step_set.TRITON
    assert "No space left on device" in capsys.readouterr().err
    assert list(cache.folder.glob("*.json")) == []
    check_kernels(setup, cache)
    assert trials.count == 2


def test_workers_that_start_together_try_once(trials: Trials, setup: EngineSetup, cache: KernelCache) -> None:
    trying = threading.Event()
    others = threading.Semaphore(0)

    def wait() -> None:
        trying.set()
        assert others.acquire(timeout=60)

    trials.during = wait
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(check_kernels, setup, cache)
        assert trying.wait(60)
        later = [pool.submit(check_kernels, setup, cache) for _ in range(2)]
        others.release()
        assert {future.result().warning for future in (first, *later)} == {""}
    assert trials.count == 1


def test_the_plan_is_made_of_the_checkpoints_sizes(trials: Trials, setup: EngineSetup) -> None:
    plan = make_plan(setup)
    assert (plan.step.sizes.dim, plan.step.sizes.positions, plan.step.slots) == (64, 4096, 8)
    assert (plan.step.sizes.fast.layers, plan.step.precision, plan.codec) == (1, "bfloat16", False)
    assert plan.gpu == Architecture(89, 99 * 1024)


def test_what_is_stopped_keeps_no_verdict_and_waits_for_no_other_worker(
    trials: Trials, setup: EngineSetup, cache: KernelCache
) -> None:
    stop = threading.Event()
    trials.during = stop.set
    with pytest.raises(LoadFailed, match="was stopped"):
        check_until_stopped(setup, cache, stop)
    assert list(cache.folder.glob("*.json")) == []
    with (cache.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LoadFailed, match="was stopped"):
            check_until_stopped(setup, cache, stop)
    assert trials.count == 1
