"""Slot occupancy for a chunk whose lengths vary 1:8 and are known only as estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.client.assignment import SEGMENTS_PER_SLOT
from cloner.engine.base import SpeechRequest
from cloner.engine.segment_codes import SlotUsage
from cloner.engine.slots.scheduler import SlotScheduler
from ops.engine_bench import ours
from ops.engine_bench.table import Row
from ops.engine_bench.workload import codes_of, make_requests, make_voice

SLOTS = 32
CHUNK = SEGMENTS_PER_SLOT * SLOTS
SHORTEST, LONGEST = 20, 160
"""Frames."""

ESTIMATE_ERROR = 0.3

SCALE = 0.5
"""Ratio of a text's length to what its frames would give. The scheduler limits its estimate to the maximum number of
frames, which here is the actual number, so without this factor no estimate could be too high."""

POSITIONS = 512


def rows(directory: Path, runs: int, goal: str) -> list[Row]:
    """One chunk for each run, each with different lengths."""
    model, prompts = ours.load_model(directory, torch.device("cpu"), torch.float32)
    scheduler = ours.make_scheduler(model, prompts, SLOTS, POSITIONS)
    used = [_occupancy(scheduler, estimated_requests(seed)) for seed in range(runs)]
    what = f"slot occupancy, {SLOTS} slots, chunks of {CHUNK}, lengths 1:8 estimated within 30%, against full slots"
    return [Row(what, "of 1", used, [1.0] * runs, goal=goal)]


def estimated_requests(seed: int) -> list[SpeechRequest]:
    """A chunk of requests of random lengths, with texts as long as the estimates."""
    random = np.random.default_rng(seed)
    frames = random.integers(SHORTEST, LONGEST, CHUNK, endpoint=True)
    estimates = frames * random.uniform(1 - ESTIMATE_ERROR, 1 + ESTIMATE_ERROR, CHUNK)
    texts = ["x" * max(1, round(estimate * SCALE / FRAMES_PER_CHARACTER)) for estimate in estimates]
    return make_requests([int(n) for n in frames], [make_voice(0, frames=10)], texts)


def _occupancy(scheduler: SlotScheduler, requests: list[SpeechRequest]) -> float:
    scheduler.usage = SlotUsage()
    finished = [codes_of(result) for result in scheduler.run(requests)]
    if len(finished) != len(requests):
        raise RuntimeError(f"{len(finished)} of {len(requests)} segments were decoded")
    return scheduler.usage.occupancy
