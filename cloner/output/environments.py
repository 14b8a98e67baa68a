"""What the takes under an output root were generated with, besides what their batches say: device, slots, versions.

``OUT/.cloner/environments/<worker>.ndjson`` has a line for each change of a worker's environment, with the time of the
first chunk that it generated so. A take is found in it by its worker and the time of its file, which stays with it when
later batches reuse it. So no line of a record has more for it.
"""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cloner.output.audio_files import OutputRoot
from cloner.output.own_folder import OwnFolder
from cloner.output.record import append_line, open_to_append
from cloner.protocol.results import Line

ENVIRONMENTS = "environments"


class Environment(BaseModel):
    """What a worker generates with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: Line
    fingerprint: Line
    """That of its checkpoint, codec included."""
    codec: Line
    """Identifies the codec that encodes recordings (`codec_identity`)."""
    device: Line
    """Kind of its GPU, or of its CPU."""
    threads: int
    """Threads of a CPU's arithmetic; 0 on a GPU."""
    slots: int
    deterministic: bool
    """Whether codes do not depend on what else is generated beside them."""
    warning: Line
    """Why the engine is slower than it could be, as where kernels do not work there; empty if it is not."""
    versions: dict[Line, Line]
    """Package -> version, and that of the GPU's driver."""

    def differences(self, now: Environment) -> list[str]:
        """What is different in `now`, each with both values."""
        names = [name for name in type(self).model_fields if name not in {"codec", "versions"}]
        values = [(name, getattr(self, name), getattr(now, name)) for name in names]
        packages = sorted({*self.versions, *now.versions})
        values += [(name, self.versions.get(name, "none"), now.versions.get(name, "none")) for name in packages]
        return [f"{name} ({_shown(then)} then, {_shown(here)} now)" for name, then, here in values if then != here]


_LINES = TypeAdapter(tuple[int, Environment])
"""Nanoseconds since the epoch, and the environment since then. By the file system's clock, as the times of takes."""


def note_environment(outputs: OutputRoot, worker: str, environment: Environment) -> None:
    """Note what a worker generates with from now on, unless its last line says so. Raises `OSError`."""
    folder, name = OwnFolder(outputs.root, ENVIRONMENTS), f"{worker}.ndjson"
    known = _read(folder, name) if folder.files(name) else []
    if known and known[-1][1] == environment:
        return
    file = open_to_append(folder, name)
    try:
        os.utime(file)
        append_line(file, _LINES.dump_json((os.fstat(file).st_mtime_ns, environment)))
    finally:
        os.close(file)


def environment_at(outputs: OutputRoot, worker: str, time_ns: int) -> Environment | None:
    """What a worker generated with at that time; None if nothing is noted of it then. Raises `OSError`."""
    folder, name = OwnFolder(outputs.root, ENVIRONMENTS), f"{worker}.ndjson"
    known = _read(folder, name) if folder.files(name) else []
    return next((environment for since, environment in reversed(known) if since <= time_ns), None)


def _read(folder: OwnFolder, name: str) -> list[tuple[int, Environment]]:
    """The lines of a file; those that a crash left incomplete are left out."""
    found = []
    for line in folder.lines(name):
        try:
            found.append(_LINES.validate_json(line))
        except ValidationError:
            continue
    return found


def _shown(value: object) -> object:
    return f'"{value}"' if isinstance(value, str) and (" " in value or not value) else value
