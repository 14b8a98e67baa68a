from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch

from cloner.audio import FRAME_SAMPLES
from cloner.batch import CODEBOOK_SIZES
from cloner.engine.base import SegmentAudio, SegmentFailure, Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.checkpoint import fish
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.pipeline import Options
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.errors import BadReference, LoadFailed
from tests.support.engine_requests import CPU, StopWhen, fixed_request, generated, loaded, make_request, make_voice
from tests.support.polling import TIMEOUT_S


def make_engine(checkpoint: Path, memory_gb: float = 4, slots: int = 3, *, deterministic: bool = True) -> BatchedEngine:
    return BatchedEngine(checkpoint, CPU, torch.float32, Options(memory_gb, slots, deterministic))


def slots_of(engine: BatchedEngine) -> SlotScheduler:
    scheduler = engine.pipeline.scheduler
    assert isinstance(scheduler, SlotScheduler)
    return scheduler


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[BatchedEngine]:
    with loaded(make_engine(tiny)) as engine:
        yield engine


def test_loading_logs_each_model_before_it_and_then_the_cache(tiny: Path) -> None:
    engine = make_engine(tiny, slots=5, deterministic=False)
    lines: list[str] = []
    engine.load(lines.append)
    assert lines[:2] == ["Loading Text2Semantic model...", "Loading DAC model..."]
    assert lines[2].startswith("Cache: 5 slots of 2048 positions, 0.00 GB, and ")
    assert engine.cache_gb == pytest.approx(float(lines[2].split()[-4]), abs=0.01), "all of it is for references here"
    assert len(lines) == 3
    engine.close()


def test_slots_follow_from_memory_and_are_final_after_loading(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner.engine.pipeline.workspace_bytes", lambda _device: 0)
    monkeypatch.setattr("cloner.engine.pipeline.used_bytes", lambda _device: 0)
    monkeypatch.setattr("cloner.engine.pipeline.free_bytes", lambda _device: 2**33)
    slot_gb = 2048 * 512 / 2**30  # 512 bytes a position: two layers of two heads of 16, keys and values in fp32
    engine = make_engine(tiny, 4.5 * slot_gb / 0.8, slots=64, deterministic=False)
    engine.load(lambda _line: None)
    assert engine.slots == 4
    assert slots_of(engine).decoder.cache.slots == 4
    assert slots_of(engine).prefixes.capacity_bytes == pytest.approx((4.5 / 0.8 - 4) * slot_gb * 2**30, abs=1)
    generated(engine, [make_request(make_voice(n), n, max_new_tokens=1, min_new_tokens=0) for n in range(6)])
    assert engine.slots == 4
    engine.close()


def test_an_engine_that_is_woken_yields_none_before_its_next_result(engine: BatchedEngine) -> None:
    """Its caller may write what others of its threads have finished."""
    woken, steps = Event(), 0

    def stopped() -> bool:
        nonlocal steps
        steps += 1
        if steps == 10:  # one segment is finished then, and the other is not
            woken.wait(TIMEOUT_S)
        return False

    requests = [fixed_request(make_voice(0), n, 40 * n + 1) for n in range(2)]
    results = engine.speak(requests, StopWhen(stopped))
    first = next(results)
    assert first
    assert first.segment == 0
    engine.wake()
    assert next(results) is None
    woken.set()
    last = next(results)
    assert last
    assert last.segment == 1
    assert list(results) == []
    engine.wake()  # by a thread that is late: the next chunk knows nothing of it
    assert None not in list(engine.speak([make_request(make_voice(0))]))


def test_every_request_of_a_chunk_gets_a_result(engine: BatchedEngine) -> None:
    requests = [make_request(make_voice(n % 2), n, max_new_tokens=1 + n, min_new_tokens=1 + n) for n in range(7)]
    requests[3] = make_request(Voice(np.zeros((9, 4), dtype=np.int32), "Nine codebooks."), 3)
    results = {result.segment: result for result in engine.speak(iter(requests)) if result}
    assert results.keys() == set(range(7))
    failed = results.pop(3)
    assert isinstance(failed, SegmentFailure)
    assert failed.code == "bad_reference"
    for segment, result in results.items():
        assert isinstance(result, SegmentAudio)
        assert result.frames == 1 + segment
        assert result.audio.dtype == np.float32
        assert result.audio.shape == (result.frames * FRAME_SAMPLES,)
        assert np.abs(result.audio).max() > 0.01


def test_a_chunk_without_requests_ends_at_once(engine: BatchedEngine) -> None:
    assert list(engine.speak([])) == []


def test_recordings_become_codes_that_can_be_a_voice(engine: BatchedEngine) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * FRAME_SAMPLES).astype(np.float32)
    (codes,) = engine.encode([noise])
    assert codes.shape == (10, 10)
    assert (codes >= 0).all()
    assert (codes < np.array(CODEBOOK_SIZES)[:, None]).all()
    generated(engine, [make_request(Voice(codes, "Noise."), max_new_tokens=1, min_new_tokens=0)])
    with pytest.raises(BadReference, match="one at least"):
        engine.encode([noise[:0]])


@pytest.mark.slow
def test_neither_torchs_compiler_nor_transformers_are_imported_by_a_load(tiny: Path) -> None:
    """They would take three seconds of every worker's start."""
    script = (
        "import sys, torch; from pathlib import Path\n"
        "from cloner.engine.batched import BatchedEngine; from cloner.engine.pipeline import Options\n"
        f"engine = BatchedEngine(Path({str(tiny)!r}), torch.device('cpu'), torch.float32, Options(4, 2))\n"
        "engine.load(lambda line: None); engine.close()\n"
        "print({'torch._dynamo', 'transformers', 'tensorboard'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_the_codecs_encoder_is_loaded_once_and_when_it_is_needed(tiny: Path) -> None:
    with patch.object(fish, "load_codec", wraps=fish.load_codec) as load:
        engine = make_engine(tiny)
        engine.load(lambda _line: None)
        for _ in range(2):
            engine.encode([np.zeros(100, dtype=np.float32)])
        engine.close()
    assert [call.args[2] for call in load.call_args_list] == [fish.CodecPart.DECODER, fish.CodecPart.ENCODER]


def test_closing_the_generator_early_stops_decoding_and_the_next_chunk_is_generated(
    engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [make_request(make_voice(n), n, max_new_tokens=2 + n, min_new_tokens=2 + n) for n in range(5)]
    before = generated(engine, requests)
    use, step = slots_of(engine).usage, slots_of(engine).step_runner.step
    stopped, waiting = Event(), Event()
    begin = use.steps

    def waiting_step(active: int, longest: int) -> Any:
        if use.steps == begin + 5:  # the shortest of the first three is finished: wait until the generator is closed
            waiting.set()
            assert stopped.wait(30)
        return step(active, longest)

    with monkeypatch.context() as patch:
        patch.setattr("cloner.engine.batched.Event", lambda: stopped)
        patch.setattr(slots_of(engine).step_runner, "step", waiting_step)
        results = engine.speak(requests)
        next(results)
        assert waiting.wait(30)
        results.close()
    assert use.steps == begin + 6, "the step in progress was the last"
    after = generated(engine, requests)
    assert all(np.array_equal(after[segment].audio, before[segment].audio) for segment in before)


def test_the_observer_gets_started_segments_and_stops_within_a_step(engine: BatchedEngine) -> None:
    requests = [make_request(make_voice(n), n, max_new_tokens=4 + n, min_new_tokens=4 + n) for n in range(5)]
    begin = engine.steps
    observer = StopWhen(lambda: engine.steps >= begin + 3)
    assert list(engine.speak(requests, observer)) == []
    assert observer.started_segments == [4, 3, 2], "three slots, longest first"
    assert engine.steps == begin + 3


def test_an_error_while_decoding_reaches_the_caller(engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    step = slots_of(engine).step_runner.step
    begin = slots_of(engine).usage.steps

    def breaking_step(active: int, longest: int) -> Any:
        if slots_of(engine).usage.steps == begin + 3:
            raise RuntimeError("the device is gone")
        return step(active, longest)

    monkeypatch.setattr(slots_of(engine).step_runner, "step", breaking_step)
    results = engine.speak(
        [make_request(make_voice(0), n, max_new_tokens=2 + 2 * n, min_new_tokens=0) for n in range(2)]
    )
    first = next(results)
    assert first
    assert first.segment == 0
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(results)


def test_a_missing_checkpoint_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(LoadFailed, match="does not exist"):
        make_engine(tmp_path / "nothing").load(lines.append)
    assert lines == []


@pytest.mark.parametrize("deterministic", [False, True])
def test_too_little_memory_for_a_slot_is_reported(tiny: Path, deterministic: bool) -> None:
    engine = make_engine(tiny, memory_gb=0.5, deterministic=deterministic)
    least = 3 if deterministic else 1
    with pytest.raises(LoadFailed, match=rf"^{least} slot\(s\) need 1\.0 GB.*of the 0\.5 GB that the worker may use"):
        engine.load(lambda _line: None)
    engine.close()


def test_a_gpu_that_torch_does_not_find_is_reported(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine = BatchedEngine(tiny, torch.device("cuda"), torch.bfloat16, Options(4, 3))
    with pytest.raises(LoadFailed, match="finds no GPU"):
        engine.load(lambda _line: None)


def test_only_a_gpu_uses_the_folder_of_kernels_and_refuses_one_that_others_can_write_to(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr("cloner.engine.batched.missing_for_kernels", lambda: None)
    options = Options(4, 3, kernel_cache=KernelCache(tmp_path / "out/kernels", tmp_path / "out"))
    with pytest.raises(LoadFailed, match="is under the output folder"):
        BatchedEngine(tiny, torch.device("cuda"), torch.bfloat16, options).load(lambda _line: None)
    with loaded(BatchedEngine(tiny, CPU, torch.float32, options)) as engine:
        assert engine.slots == 3
    assert not (tmp_path / "out").exists()


def test_a_gpu_without_a_compiler_is_slower_and_the_engine_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr("cloner.engine.batched.missing_for_kernels", lambda: "there is no C compiler")
    engine = BatchedEngine(tiny, torch.device("cuda"), torch.bfloat16, Options(4, 3))
    load = MagicMock(side_effect=LoadFailed("that is all"))
    monkeypatch.setattr("cloner.engine.batched.load_pipeline", load)
    with pytest.raises(LoadFailed, match="that is all"):
        engine.load(lambda _line: None)
    assert engine.warning.endswith("so it is several times slower: there is no C compiler")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_models_that_do_not_fit_on_the_device_are_reported(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", MagicMock(side_effect=error))
    with pytest.raises(LoadFailed, match="do not fit into the device's memory: start fewer workers on it"):
        make_engine(tiny).load(lambda _line: None)


def test_an_error_that_is_not_of_memory_is_not_taken_for_it_at_load(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", MagicMock(side_effect=RuntimeError("a size does not fit")))
    with pytest.raises(RuntimeError, match="a size does not fit"):
        make_engine(tiny).load(lambda _line: None)


def test_closing_releases_the_models(tiny: Path) -> None:
    engine = make_engine(tiny)
    engine.load(lambda _line: None)
    generated(engine, [make_request(make_voice(0), max_new_tokens=1, min_new_tokens=0)])
    engine.encode([np.zeros(100, dtype=np.float32)])
    decoder = slots_of(engine).decoder
    gone = [
        weakref.ref(item)
        for item in (decoder.model, decoder.cache, engine.pipeline.codec_stage._codec, engine._encoder)
    ]
    del decoder
    engine.close()
    gc.collect()
    assert [item() for item in gone] == [None] * 4
