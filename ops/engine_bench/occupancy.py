"""How full the slots are while a chunk is spoken whose lengths are spread 1:8 and only guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.engine.base import SpeechRequest
from cloner.engine.scheduler import Scheduler, Use
from ops.engine_bench import ours
from ops.engine_bench.table import Row
from ops.engine_bench.workload import codes_of, make_lines, make_voice

SLOTS = 32
CHUNK = 8 * SLOTS
SHORTEST, LONGEST = 20, 160
"""Frames."""

GUESS_ERROR = 0.3

SCALE = 0.5
"""Texts are so much shorter than their frames would make them. The scheduler cuts its guess at the most frames that a
segment may have, which here is what it will have: guesses above that would no longer be wrong."""

POSITIONS = 512


def rows(directory: Path, runs: int, goal: str) -> list[Row]:
    """One chunk each run, each with lengths of its own."""
    model, prompts = ours.load_model(directory, torch.device("cpu"), torch.float32)
    scheduler = ours.make_scheduler(model, prompts, SLOTS, POSITIONS)
    used = [_occupancy(scheduler, guessed_lines(seed)) for seed in range(runs)]
    what = f"slot occupancy, {SLOTS} slots, chunks of {CHUNK}, lengths 1:8 guessed within 30%, against full slots"
    return [Row(what, "of 1", used, [1.0] * runs, goal=goal)]


def guessed_lines(seed: int) -> list[SpeechRequest]:
    """A chunk of lines as long as chance has it, with texts as long as the guess."""
    random = np.random.default_rng(seed)
    frames = random.integers(SHORTEST, LONGEST, CHUNK, endpoint=True)
    guesses = frames * random.uniform(1 - GUESS_ERROR, 1 + GUESS_ERROR, CHUNK)
    texts = ["x" * max(1, round(guess * SCALE / FRAMES_PER_CHARACTER)) for guess in guesses]
    return make_lines([int(n) for n in frames], [make_voice(0, frames=10)], texts)


def _occupancy(scheduler: Scheduler, lines: list[SpeechRequest]) -> float:
    scheduler.use = Use()
    spoken = [codes_of(answer) for answer in scheduler.run(lines)]
    if len(spoken) != len(lines):
        raise RuntimeError(f"{len(spoken)} of {len(lines)} segments were spoken")
    return scheduler.use.occupancy
