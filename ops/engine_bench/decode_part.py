"""Part `decode`: codes of many segments through the scheduler, prompts read within the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.engine.base import SpeechRequest
from cloner.engine.segment_codes import SlotUsage
from cloner.engine.token_rows.device import Statuses, StepRows
from cloner.engine.token_rows.scheduler import RowScheduler
from ops.engine_bench.step_model import compile_all, load_weights, make_device, make_scheduler, step_options
from ops.engine_bench.table import Row
from ops.engine_bench.workload import FRAMES_PER_SECOND, TEXT, codes_of, make_requests, make_voice, wait_for

VOICES, SHORTEST, LONGEST = 8, 100, 300
GOALS = {64: ">= 1,050 x real time on an H200", 128: ">= 1,500 x real time on an H200"}
RUNS = 2


@torch.inference_mode()
def measure(directory: Path, size: str, name: str, slots: tuple[int, ...], segments: int) -> Iterator[Row]:
    """Frames a second, for each number of slots."""
    device = torch.device(name)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    compile_all(size, [step_options(count) for count in slots], device)
    weights, prompts = load_weights(directory, device, precision)
    # The longest first, since equal texts leave them in their order.
    lengths = np.linspace(LONGEST, SHORTEST, segments).round().astype(int).tolist()
    if device.type == "cpu":
        lengths = [max(1, length // 50) for length in lengths]
    for count in slots:
        step = make_device(weights, step_options(count))
        began = time.perf_counter()
        if device.type == "cuda":
            step.warm_up()
        yield Row(f"decoding, {count} slots: graphs captured", "s", [time.perf_counter() - began])
        scheduler = make_scheduler(step, prompts)
        for texts, goal in ((_short_texts(lengths), GOALS.get(count, "")), (_usual_texts(lengths), "")):
            requests = _requests(lengths, texts)
            runs = []
            for _ in range(RUNS + 1):
                scheduler.usage = SlotUsage()
                runs.append(_run(scheduler, requests, device))
            usage, (rate, waited) = scheduler.usage, max(runs[1:])
            tokens = sum(len(prompts.text(request)) for request in requests) / len(requests)
            yield Row(
                f"decoding, {count} slots, {segments} segments, texts of {tokens:.0f} tokens, prompts included",
                "frames/s",
                [run[0] for run in runs[1:]],
                goal=goal,
                remark=(
                    f"{rate / FRAMES_PER_SECOND:.0f} x real time at best; occupancy {usage.occupancy:.3f},"
                    f" {usage.steps} steps, host waited {waited:.0%} of the time"
                ),
            )
        del scheduler, step
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _usual_texts(lengths: list[int]) -> list[str]:
    """Texts that take so many frames at the usual rate of speech."""
    return [(TEXT + " ")[:60] * (1 + length // 60) for length in lengths]


def _short_texts(lengths: list[int]) -> list[str]:
    return [TEXT[:20]] * len(lengths)


def _requests(lengths: list[int], texts: list[str]) -> list[SpeechRequest]:
    cut = [text[: max(1, round(length / FRAMES_PER_CHARACTER))] for text, length in zip(texts, lengths, strict=True)]
    return make_requests(lengths, [make_voice(voice) for voice in range(VOICES)], cut)


def _run(scheduler: RowScheduler, requests: list[SpeechRequest], device: torch.device) -> tuple[float, float]:
    """Frames a second, and the part of the time that the host waited for the device."""
    scheduler.pool.reset()  # references are read within the time
    waited = 0.0
    launch = scheduler.device.launch

    def timed(rows: StepRows) -> Statuses:
        statuses = launch(rows)

        def wait() -> list[int]:
            nonlocal waited
            began = time.perf_counter()
            values = statuses()
            waited += time.perf_counter() - began
            return values

        return wait

    wait_for(device)
    began = time.perf_counter()
    with patch.object(scheduler.device, "launch", timed):
        frames = [codes_of(answer).shape[1] for answer in scheduler.run(requests)]
    wait_for(device)
    seconds = time.perf_counter() - began
    if sorted(frames) != sorted(request.generation.max_new_tokens for request in requests):
        raise RuntimeError("segments have not as many frames as were asked for")
    return sum(frames) / seconds, waited / seconds
