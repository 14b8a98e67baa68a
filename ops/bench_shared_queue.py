"""How well the chunks of the shared queue keep workers busy: a simulation of their slots, without an engine.

    python ops/bench_shared_queue.py

A step takes a worker the same time however many of its slots are full. Lengths vary 1:8 and are known within 30%; in a
chunk the longest segment is generated first, 5% of the attempts fail, and each of these is made again before shorter
segments. A batch of several speakers has as many segments of each, and a speaker is split only where it has more than
fit into a chunk. What is printed is the work done in slots as part of what all of them could have done until the last
worker has finished.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cloner.client.assignment import SpeakerSlice, split_for_any_worker

SLOTS = 128
ATTEMPTS = 3
FAILING = 0.05
SHORTEST, LONGEST = 20, 160
"""Frames."""

SPEEDS = ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.5, 0.5), (1.0, 0.8, 0.8, 0.6))
"""Of four workers."""

SEGMENTS = (4_500, 6_000, 8_000, 10_000, 14_000, 20_000, 40_000, 100_000)
SPEAKERS = (1, 20, 100)
RUNS = 4


def chunk_steps(segments: int, dice: random.Random) -> tuple[float, int]:
    """Steps that a chunk takes, and frames that it generates."""
    lengths = [dice.randint(SHORTEST, LONGEST) for _ in range(segments)]
    waiting = [(-length * dice.uniform(0.7, 1.3), length, 1) for length in lengths]
    heapify(waiting)
    running: list[tuple[float, float, int, int]] = []
    now, frames = 0.0, 0
    while waiting or running:
        while waiting and len(running) < SLOTS:
            estimate, length, attempt = heappop(waiting)
            heappush(running, (now + length, estimate, length, attempt))
            frames += length
        now, estimate, length, attempt = heappop(running)
        if attempt < ATTEMPTS and dice.random() < FAILING:
            heappush(waiting, (estimate, length, attempt + 1))
    return now, frames


def used(chunks: Sequence[int], speeds: Sequence[float], seed: int) -> float:
    """Part of the workers' slots that is used until the last of them has finished."""
    dice = random.Random(seed)  # noqa: S311 - lengths for a simulation
    free = [(0.0, speed) for speed in speeds]
    heapify(free)
    done = 0
    for chunk in chunks:
        steps, frames = chunk_steps(chunk, dice)
        since, speed = heappop(free)
        heappush(free, (since + steps / speed, speed))
        done += frames
    return done / (max(end for end, _ in free) * sum(speeds) * SLOTS)


def even_chunks(segments: int, workers: int) -> list[int]:
    """Chunks of 8 segments a slot, or an even part of fewer."""
    size = min(8 * SLOTS, -(-segments // workers))
    return [min(size, segments - start) for start in range(0, segments, size)]


def chunks_in_rounds(segments: int, speakers: int, workers: int) -> list[int]:
    """Chunks of the shared queue, of `speakers` that have as many segments each, within one."""
    bounds = [segments * speaker // speakers for speaker in range(speakers + 1)]
    whole = [SpeakerSlice(speaker, 0, bounds[speaker + 1] - bounds[speaker]) for speaker in range(speakers)]
    return [sum(map(len, chunk)) for chunk in split_for_any_worker(tuple(whole), SLOTS, workers)]


def main() -> None:
    """Print the table."""
    rounds = " | ".join(f"in rounds, {speakers} speaker{'s' if speakers > 1 else ''}" for speakers in SPEAKERS)
    print(f"| segments | speeds | chunks of one size, of 8 segments a slot | {rounds} |")
    print("|---" * (3 + len(SPEAKERS)) + "|")
    for speeds in SPEEDS:
        for segments in SEGMENTS:
            found = [
                mean(used(chunks, speeds, seed) for seed in range(RUNS))
                for chunks in (
                    even_chunks(segments, len(speeds)),
                    *(chunks_in_rounds(segments, speakers, len(speeds)) for speakers in SPEAKERS),
                )
            ]
            cells = [f"{segments:,}", ", ".join(f"{speed:g}" for speed in speeds), *(f"{part:.3f}" for part in found)]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
