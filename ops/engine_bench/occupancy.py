"""How full the slots are while a chunk is spoken whose lengths are spread 1:8 and only guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.engine.base import SpeechRequest
from cloner.engine.scheduler import Scheduler, SlotUsage
from ops.engine_bench import ours
from ops.engine_bench.table import Row
from ops.engine_bench.workload import codes_of, make_requests, make_voice

SLOTS = 32
CHUNK = 8 * SLOTS
SHORTEST, LONGEST = 20, 160
"""Frames."""

GUESS_ERROR = 0.3

SCALE = 0.5
"""Ratio of a text's length to what its frames would give. The scheduler limits its estimate to the maximum number of
frames, which here is the actual number, so without this factor no estimate could be too high."""

POSITIONS = 512


def rows(directory: Path, runs: int, goal: str) -> list[Row]:
    """One chunk each run, each with lengths of its own."""
    model, prompts = ours.load_model(directory, torch.device("cpu"), torch.float32)
    scheduler = ours.make_scheduler(model, prompts, SLOTS, POSITIONS)
    used = [_occupancy(scheduler, estimated_requests(seed)) for seed in range(runs)]
    what = f"slot occupancy, {SLOTS} slots, chunks of {CHUNK}, lengths 1:8 guessed within 30%, against full slots"
    return [Row(what, "of 1", used, [1.0] * runs, goal=goal)]


def estimated_requests(seed: int) -> list[SpeechRequest]:
    """A chunk of requests as long as chance has it, with texts as long as the estimated_frames."""
    random = np.random.default_rng(seed)
    frames = random.integers(SHORTEST, LONGEST, CHUNK, endpoint=True)
    guesses = frames * random.uniform(1 - GUESS_ERROR, 1 + GUESS_ERROR, CHUNK)
    texts = ["x" * max(1, round(estimated_frames * SCALE / FRAMES_PER_CHARACTER)) for estimated_frames in guesses]
    return make_requests([int(n) for n in frames], [make_voice(0, frames=10)], texts)


def _occupancy(scheduler: Scheduler, requests: list[SpeechRequest]) -> float:
    scheduler.usage = SlotUsage()
    spoken = [codes_of(result) for result in scheduler.run(requests)]
    if len(spoken) != len(requests):
        raise RuntimeError(f"{len(spoken)} of {len(requests)} segments were spoken")
    return scheduler.usage.occupancy
