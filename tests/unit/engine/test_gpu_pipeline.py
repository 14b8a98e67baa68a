"""The batched engine with a GPU's pipeline on a CPU, where twins stand in for the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NoReturn
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from cloner.audio import FRAME_SAMPLES
from cloner.engine import gpu_pipeline
from cloner.engine.base import SegmentAudio, SegmentFailure, Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.checkpoint import fish
from cloner.engine.codec.precision import load_codec_decoder
from cloner.engine.gpu_pipeline import load_gpu_pipeline
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.kernel_trial.check import CheckedKernels, EngineSetup
from cloner.engine.kernels.codec.kernel_set import TRITON as CODEC_TRITON
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS
from cloner.engine.memory import GB
from cloner.engine.pipeline import Options
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.workspace import CodecMemory
from cloner.errors import LoadFailed
from tests.support.engine_requests import CPU, StopWhen, fixed_request, generated, loaded, make_request, make_voice


def make_engine(
    checkpoint: Path, memory_gb: float = 4, slots: int = 3, *, deterministic: bool = False
) -> BatchedEngine:
    return BatchedEngine(checkpoint, CPU, torch.float32, Options(memory_gb, slots, deterministic))


@pytest.fixture(autouse=True, scope="module")
def pipeline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloner.engine.batched.load_pipeline", load_gpu_pipeline)
        patch.setattr("cloner.engine.gpu_pipeline.sys.setswitchinterval", lambda _seconds: None)
        yield


@pytest.fixture(scope="module")
def engine(tiny: Path, pipeline: None) -> Iterator[BatchedEngine]:
    with loaded(make_engine(tiny)) as engine:
        yield engine


def test_loading_logs_each_model_before_it_and_then_the_pages(tiny: Path) -> None:
    engine = make_engine(tiny, slots=5)
    lines: list[str] = []
    engine.load(lines.append)
    assert lines[:2] == ["Loading Text2Semantic model...", "Loading DAC model..."]
    assert lines[2] == f"Cache: 5 slots, {1 + 5 * 18 + 16 * 5} pages of 64 positions, {engine.cache_gb:.2f} GB"
    assert engine.slots == 5
    engine.close()


@pytest.mark.slow
def test_slots_follow_from_memory_unless_they_are_fixed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("used", 0), ("free", 2**33), ("step", 0)):
        monkeypatch.setattr(f"cloner.engine.gpu_pipeline.{name}_bytes", lambda *_sizes, value=value: value)
    monkeypatch.setattr("cloner.engine.gpu_pipeline.DRIVER_BYTES", 0)
    monkeypatch.setattr(CodecMemory, "of", lambda _codec: CodecMemory(0, 0, 0))
    page_gb = 64 * 512 / GB  # 512 bytes a position: two layers of two heads of 16, keys and values in fp32
    for deterministic, slots in ((False, 4), (True, 64)):
        engine = make_engine(tiny, 53.5 * page_gb, slots=64, deterministic=deterministic)
        engine.load(lambda _line: None)
        assert engine.slots == slots
        engine.close()
    with pytest.raises(LoadFailed, match=r"a cache of 2048 positions needs .* start fewer workers on the card"):
        make_engine(tiny, 30 * page_gb).load(lambda _line: None)


@pytest.mark.slow
def test_every_request_of_a_chunk_gets_a_result(engine: BatchedEngine) -> None:
    requests = [fixed_request(make_voice(n % 2), n, 1 + n) for n in range(7)]
    requests[3] = make_request(Voice(np.zeros((9, 4), dtype=np.int32), "Nine codebooks."), 3)
    results = {result.segment: result for result in engine.speak(iter(requests)) if result}
    failure = results.pop(3)
    assert isinstance(failure, SegmentFailure)
    assert failure.code == "bad_reference"
    assert {n: len(result.audio) for n, result in results.items() if isinstance(result, SegmentAudio)} == {
        n: (1 + n) * FRAME_SAMPLES for n in (0, 1, 2, 4, 5, 6)
    }


@pytest.mark.slow
def test_a_segment_sounds_the_same_alone_and_among_others_if_that_is_asked_for(tiny: Path) -> None:
    engine = make_engine(tiny, deterministic=True)
    engine.load(lambda _line: None)
    requests = [make_request(make_voice(n % 2), n, f"Number {n}.", seed=n, max_new_tokens=4) for n in range(5)]
    together = generated(engine, requests)
    for request in requests[::2]:
        alone = generated(engine, [request])[request.segment]
        assert np.allclose(alone.audio, together[request.segment].audio, atol=1e-5)
    engine.close()


@pytest.mark.slow
def test_the_observer_gets_started_segments_and_stops_within_a_step(engine: BatchedEngine) -> None:
    requests = [fixed_request(make_voice(0), n, 4 + n) for n in range(5)]
    begin = engine.steps
    observer = StopWhen(lambda: engine.steps >= begin + 3)
    assert list(engine.speak(requests, observer)) == []
    assert observer.started_segments == [4, 3, 2], "three slots, longest first"
    assert engine.steps == begin + 3
    assert sorted(generated(engine, requests)) == list(range(5)), "the next chunk is generated whole"


@pytest.mark.slow
def test_closing_the_results_early_stops_and_the_next_chunk_is_generated(engine: BatchedEngine) -> None:
    requests = [fixed_request(make_voice(n), n, 2 + n) for n in range(5)]
    results = engine.speak(requests)
    next(results)
    results.close()
    assert sorted(generated(engine, requests)) == list(range(5))


def test_weights_of_nan_fail_a_segment_and_not_the_next_chunk(engine: BatchedEngine) -> None:
    scheduler = engine.pipeline.scheduler
    assert isinstance(scheduler, RowScheduler)
    head = scheduler.device.weights.head  # type: ignore[attr-defined]
    kept = head.clone()
    with torch.inference_mode():
        head.fill_(torch.nan)
    (failure,) = engine.speak([fixed_request(make_voice(0), 0, 3)])
    with torch.inference_mode():
        head.copy_(kept)
    assert isinstance(failure, SegmentFailure)
    assert (failure.code, failure.message[:11]) == ("generation_failed", "the model's")
    assert sorted(generated(engine, [fixed_request(make_voice(0), 1, 3)])) == [1]


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_slots_which_the_engine_reports(tiny: Path) -> None:
    engine = make_engine(tiny, slots=4)
    engine.load(lambda _line: None)
    scheduler = engine.pipeline.scheduler
    assert isinstance(scheduler, RowScheduler)
    launch, launched = scheduler.device.launch, 0

    def scarce(rows: object) -> object:
        nonlocal launched
        launched += 1
        if launched == 3:
            torch.empty(2**50)
        return launch(rows)  # type: ignore[arg-type]

    scheduler.device.launch = scarce  # type: ignore[method-assign, assignment]
    before = engine.cache_gb
    assert sorted(generated(engine, [fixed_request(make_voice(0), n, 3) for n in range(5)])) == list(range(5))
    assert engine.slots == 2
    assert engine.cache_gb == pytest.approx(before / 2, rel=0.1)
    engine.close()


def test_the_step_and_the_codec_get_the_kernels_that_work_and_the_engine_says_which_do_not(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = CheckedKernels(TRITON.without(["linear"]), CODEC_TRITON.without(["gate"]), "linear and gate do not work")
    used = []

    def make_step(_weights: object, _options: object, kernels: object) -> NoReturn:
        used.append(kernels)
        raise LoadFailed("that is all")

    def load_codec(*arguments: Any) -> Any:
        used.append(arguments[3]())
        return load_codec_decoder(*arguments)

    monkeypatch.setattr(gpu_pipeline, "_check_kernels", lambda *_: checked)
    engine = make_engine(tiny)
    engine.load(lambda _line: None)
    assert engine.warning == "linear and gate do not work"
    engine.close()
    monkeypatch.setattr(gpu_pipeline, "make_step", make_step)
    monkeypatch.setattr(gpu_pipeline, "load_codec_decoder", load_codec)
    with pytest.raises(LoadFailed, match="that is all"):
        make_engine(tiny).load(lambda _line: None)
    assert used == [checked.codec, checked.step]
    assert checked.step.linear is TWINS.linear


def test_a_load_that_fails_ends_the_trial_of_kernels_with_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []
    monkeypatch.setattr(gpu_pipeline, "_check_kernels", lambda _setup, _cache, stop: stopped.append(stop.wait(60)))
    monkeypatch.setattr(fish, "load_text2semantic", MagicMock(side_effect=LoadFailed("no weights")))
    with pytest.raises(LoadFailed, match="no weights"):
        make_engine(tiny).load(lambda _line: None)
    assert stopped == [True]


def test_a_cpu_tries_no_kernels(tiny: Path, tmp_path: Path) -> None:
    setup = EngineSetup(tiny, CPU, torch.float32, 3, deterministic=False, resampling=True)
    cache = KernelCache(tmp_path / "kernels", tmp_path / "out")
    assert gpu_pipeline._check_kernels(setup, cache, Event()) == CheckedKernels()
    assert not cache.folder.exists()
