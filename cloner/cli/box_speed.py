"""How fast this box generates speech: measured by each `cloner run`, so that `cloner plan` can say how long one takes.

Kept in the user's cache folder, in a file for each engine, checkpoint and kind of device.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloner.errors import one_line
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.atomic_file import FileAt, write_and_rename
from cloner.state.registry import WorkerInfo

FADING = 0.5
"""Part of the earlier measurements that counts when a run adds its own: a short run changes little, and a box that has
changed is soon known as it is."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BoxSpeed(BaseModel):
    """What one device of a kind has generated, all of its workers together, and how long a run takes besides."""

    model_config = ConfigDict(frozen=True)

    audio_s: Positive
    """Seconds of audio, those of earlier runs weighted by `FADING`."""
    busy_s: Positive
    """Seconds that this took."""
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds of the last run in which no worker was busy: most of it is loading."""


def keep_speed(workers: Iterable[WorkerInfo], elapsed_s: float) -> None:
    """Note how fast a run's workers were; nothing if they have generated nothing. The run took `elapsed_s` seconds.

    Raises `OSError`, and `RuntimeError` where the user has no home.
    """
    busy = [worker for worker in workers if worker.spoken_s > 0 and worker.busy_s > 0]
    if not busy:
        return
    start_s = max(0.0, elapsed_s - max(worker.busy_s for worker in busy))
    kinds: defaultdict[str, list[WorkerInfo]] = defaultdict(list)
    for worker in busy:
        kinds[_file_name(worker)].append(worker)
    for name, own in kinds.items():
        audio_s, busy_s = _measured(own)
        if before := _read(name):
            audio_s += FADING * before.audio_s
            busy_s += FADING * before.busy_s
        speed = BoxSpeed(audio_s=audio_s, busy_s=busy_s, start_s=start_s)
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        part = FileAt(folder / f"{name}-{os.getpid()}.part")
        write_and_rename([speed.model_dump_json().encode()], part, FileAt(folder / name))


def at_known_speed(workers: Sequence[WorkerInfo]) -> tuple[list[WorkerInfo], float]:
    """The workers of a run to come, with the speed that was measured for their kind of device, if any was; and the
    seconds that the run takes besides."""
    speeds = {name: _read(name) for name in set(map(_file_name, workers))}
    sharing = Counter(worker.card for worker in workers)
    known = [_with_speed(worker, speeds[_file_name(worker)], sharing[worker.card]) for worker in workers]
    return known, max((speed.start_s for speed in speeds.values() if speed), default=0.0)


def _with_speed(worker: WorkerInfo, speed: BoxSpeed | None, sharing: int) -> WorkerInfo:
    """The worker with its part of its device's speed, if that is known; `sharing` workers are on the device."""
    return replace(worker, spoken_s=speed.audio_s, busy_s=speed.busy_s * sharing) if speed else worker


def _measured(workers: Sequence[WorkerInfo]) -> tuple[float, float]:
    """Seconds of audio, and seconds that they took on one device. Workers that share a device work at the same time."""
    audio_s = busy_s = 0.0
    for _, group in groupby(sorted(workers, key=lambda worker: worker.card), key=lambda worker: worker.card):
        sharing = list(group)
        spoken_s = sum(worker.spoken_s for worker in sharing)
        audio_s += spoken_s
        busy_s += spoken_s / sum(worker.spoken_s / worker.busy_s for worker in sharing)
    return audio_s, busy_s


def _folder() -> Path:
    """Raises `RuntimeError` where the user has no home."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "cloner" / "speeds"


def _file_name(worker: WorkerInfo) -> str:
    kind = [worker.engine, worker.fingerprint, worker.gpu or "cpu"]
    return sha256(json.dumps(kind).encode()).hexdigest()[:32] + ".json"


def _read(name: str) -> BoxSpeed | None:
    """A measurement; None if there is none that can be read, and the next one takes its place."""
    try:
        return BoxSpeed.model_validate_json((_folder() / name).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as error:
        log_event(Event.SPEED_NOT_READ, error=one_line(str(error)))
        return None
