"""Every setting, with its unit and default. All are environment variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cloner.errors import BadSetting, printable
from cloner.names import QueueNames
from cloner.validation import name_flaw, shown

S = TypeVar("S", bound=BaseSettings)
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
_GPU = r"([0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+)"
GpuNames = Annotated[str, StringConstraints(pattern=rf"^ *{_GPU}( *, *{_GPU})* *$")]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400)]


def _folder(path: Path) -> Path:
    if flaw := name_flaw(printable(path)):
        raise ValueError(flaw)
    return path


Folder = Annotated[Path, BeforeValidator(_folder)]


class EngineName(StrEnum):
    """The engines."""

    BATCHED = "batched"
    UPSTREAM = "upstream"
    FAKE = "fake"


class LogFormat(StrEnum):
    """Formats of log lines."""

    TEXT = "text"
    JSON = "json"


class Settings(BaseSettings):
    """Settings of clients, launchers, workers and collectors; each process uses those that concern it."""

    # Compose passes `CLONER_GPUS=` of a .env on as an empty variable: it has the default, as if it were unset.
    model_config = SettingsConfigDict(
        env_prefix="CLONER_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    redis_url: str | None = Field(
        None, description="Redis or Valkey of the fleet; `cloner run` starts its own if unset"
    )
    fleet: Name = Field("main", description="name of the fleet: several fleets may share a Redis")
    box: Name = Field("box", description="this box's name in queue and worker names; must outlive restarts")
    checkpoint_dir: Folder = Field(
        Path("checkpoints/openaudio-s1-mini"), description="fish-speech checkpoint that the workers load"
    )
    out_dir: Folder = Field(Path("out"), description="output root of the fleet, or where a client sees it")
    references_dir: Folder | None = Field(
        None, description="folder of references outside of the batch file's own that batches may name"
    )
    recogniser: Folder | None = Field(
        None,
        description=(
            "model that writes missing transcripts of recordings (extra `asr`), and by which reviewers compare words:"
            " its folder, or the name of one that `cloner recogniser pull` has fetched; neither is done if unset"
        ),
    )
    recogniser_cache: Folder = Field(
        Path("~/.cache/cloner/recognisers"), description="folder into which `cloner recogniser pull` fetches models"
    )
    engine: EngineName = Field(
        EngineName.BATCHED,
        description="what speaks: batched, upstream (fish-speech's own, one text at a time) or fake (tones)",
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="most segments that the batched engine decodes together; by default 128 on a GPU, 64 on a CPU",
    )
    deterministic: bool = Field(
        False, description="batched engine: the same codes whatever else is spoken beside a segment; slower"
    )
    kernel_cache: Folder = Field(
        Path("~/.cache/cloner/kernels"),
        description="folder of compiled kernels; workers on a GPU run what is there, so it must be their user's alone",
    )
    model_memory_gb: float = Field(
        8.0,
        gt=0,
        allow_inf_nan=False,
        validation_alias="FISH_MODEL_MEMORY_GB",
        description=(
            "memory that one worker takes, GB of 1024**3 bytes; decides the workers per card, for batched only if set"
        ),
    )
    gpus: GpuNames | None = Field(
        None,
        description="GPUs that workers run on, by number or UUID as `nvidia-smi -L` lists them: 0,2; all if unset",
    )
    workers_per_gpu: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        "auto", description="workers on each GPU; auto: one if the engine is batched and FISH_MODEL_MEMORY_GB is unset"
    )
    batch_ttl_s: int = Field(
        7 * 86_400, ge=60, le=3660 * 86_400, description="how long Redis keeps a batch and its references, seconds"
    )
    heartbeat_s: Seconds = Field(2.0, description="seconds between a worker's heartbeats")
    alive_s: Seconds = Field(30.0, description="seconds without a heartbeat after which a worker counts as gone")
    load_s: Seconds = Field(
        900.0, description="seconds that loading a model may take; a worker that takes longer is replaced"
    )
    hang_s: Seconds = Field(
        300.0, description="seconds that a worker may be at work without a step before it is replaced"
    )
    disk_wait_s: SecondsOrNone = Field(
        600.0,
        description="seconds that a chunk waits in total while the output folder's disk fails; a full disk: no limit",
    )
    stop_s: Seconds = Field(20.0, description="seconds that a stopping worker gets before it is killed")
    log_format: LogFormat = Field(
        LogFormat.TEXT, description="log lines on standard error: text, for people, or json, one object a line"
    )
    check_limits: Annotated[
        str, StringConstraints(pattern=r"^([a-z_]+=[0-9]+(\.[0-9]+)?(,[a-z_]+=[0-9]+(\.[0-9]+)?)*)?$")
    ] = Field("", description="limits of checks that are not the checks' own, such as pause=2.5,level=12")
    fake_slots: int = Field(1, ge=1, le=1024, description="slots of the fake engine")
    fake_load_s: SecondsOrNone = Field(0.0, description="seconds that the fake engine takes to load")
    fake_segment_s: SecondsOrNone = Field(0.0, description="seconds that the fake engine takes for a segment")

    @property
    def fixed_workers_per_gpu(self) -> int | None:
        """Workers on each GPU, whatever its memory; None if `model_memory_gb` decides."""
        if self.workers_per_gpu != "auto":
            return self.workers_per_gpu
        # One batched worker fills a GPU; each further one reads the same weights again for its own steps.
        return 1 if self.engine is EngineName.BATCHED and "model_memory_gb" not in self.model_fields_set else None

    def batched_slots(self, device: str) -> int:
        """Slots of the batched engine on `device`, "cpu" or "cuda:N", where memory allows.

        On an H200, 128 slots decode 1.4 times as fast as 64.
        """
        return self.slots or (128 if device.startswith("cuda") else 64)

    @property
    def queues(self) -> QueueNames:
        """The names of the fleet's queues."""
        return QueueNames(self.fleet)

    def require_redis_url(self, otherwise: str = "") -> str:
        """The Redis address, or `BadSetting` if there is none; `otherwise` says what would do without one."""
        if not self.redis_url:
            raise BadSetting(
                f"CLONER_REDIS_URL is not set: give the fleet's Redis, as in redis://:password@host:6379/0{otherwise}"
            )
        return self.redis_url


class WorkerSettings(BaseSettings):
    """What the launcher sets for one worker. Started by hand, the defaults give worker 0 on the CPU."""

    model_config = SettingsConfigDict(env_prefix="CLONER_WORKER_", frozen=True, extra="ignore")

    index: int = Field(0, ge=0, description="the worker's number on its box")
    card: Name = Field("cpu", description='"cpu" or the start of the GPU\'s UUID; part of queue and name')
    number: int = Field(0, ge=0, description="count of this worker on its card")
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|cuda:[0-9]{1,4})$")] = Field(
        "cpu", description='as people read it: "cpu" or "cuda:N" with the box\'s own GPU number'
    )
    gpu: str = Field("", description="the GPU's name, empty on CPU")
    memory_gb: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="memory that this worker may use, GB; FISH_MODEL_MEMORY_GB if unset",
    )


_NAME = "give 1 to 40 letters, digits, - or _"
_FOLDER = "give the name of a folder"
_SECONDS = "give a number of seconds above 0, at most 86400 (a day)"
_SECONDS_OR_NONE = "give a number of seconds, 0 to 86400 (a day)"
_COUNT = "give a whole number, 0 or more"
_GB = "give a number of GB above 0, such as 8.0"

_RIGHT = {
    "CLONER_FLEET": _NAME,
    "CLONER_BOX": _NAME,
    "CLONER_CHECKPOINT_DIR": _FOLDER,
    "CLONER_OUT_DIR": _FOLDER,
    "CLONER_REFERENCES_DIR": _FOLDER,
    "CLONER_RECOGNISER": "give the folder of a model, or the name of one that `cloner recogniser pull` has fetched",
    "CLONER_RECOGNISER_CACHE": _FOLDER,
    "CLONER_ENGINE": f"give {' or '.join(EngineName)}",
    "CLONER_SLOTS": "give a whole number, 1 to 1024",
    "CLONER_DETERMINISTIC": "give true or false",
    "CLONER_KERNEL_CACHE": _FOLDER,
    "FISH_MODEL_MEMORY_GB": _GB,
    "CLONER_BATCH_TTL_S": "give a whole number of seconds, 60 to 316224000 (ten years)",
    "CLONER_HEARTBEAT_S": _SECONDS,
    "CLONER_ALIVE_S": _SECONDS,
    "CLONER_LOAD_S": _SECONDS,
    "CLONER_HANG_S": _SECONDS,
    "CLONER_DISK_WAIT_S": _SECONDS_OR_NONE,
    "CLONER_STOP_S": _SECONDS,
    "CLONER_LOG_FORMAT": f"give {' or '.join(LogFormat)}",
    "CLONER_CHECK_LIMITS": "give names of checks with their limits, such as pause=2.5,level=12",
    "CLONER_FAKE_SLOTS": "give a whole number, 1 to 1024",
    "CLONER_FAKE_LOAD_S": _SECONDS_OR_NONE,
    "CLONER_FAKE_SEGMENT_S": _SECONDS_OR_NONE,
    "CLONER_GPUS": "give numbers or UUIDs that `nvidia-smi -L` lists, with commas between them, as in 0,2; or unset it",
    "CLONER_WORKERS_PER_GPU": "give auto, or a whole number, 1 to 64",
    "CLONER_WORKER_INDEX": _COUNT,
    "CLONER_WORKER_CARD": _NAME,
    "CLONER_WORKER_NUMBER": _COUNT,
    "CLONER_WORKER_DEVICE": "give cpu, or cuda:N with the number of a GPU",
    "CLONER_WORKER_MEMORY_GB": _GB,
}
"""What is right for each variable that can be wrong; the others take any text."""


def load_settings() -> Settings:
    """Settings from the environment; `BadSetting` names every variable that makes no sense."""
    return _from_environment(Settings)


def load_worker_settings() -> WorkerSettings:
    """What the launcher has set for this worker; `BadSetting` names every variable that makes no sense."""
    return _from_environment(WorkerSettings)


def misspelt_variables(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that are nearly those of settings: (the name in the environment, the setting that it is close to)."""
    fields = {**Settings.model_fields, **WorkerSettings.model_fields}
    known = {*_RIGHT, *(f"CLONER_{name}".upper() for name in fields), "CLONER_UID", "CLONER_GID"}
    for name in sorted(set(environment) - known):
        if name.upper().startswith(("CLONER", "FISH_MODEL")):
            for meant in difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85):
                yield name, meant


def _from_environment(kind: type[S]) -> S:
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        problems: dict[str, None] = {}  # a setting of two kinds has two errors
        for problem in error.errors():
            field = str(problem["loc"][0])
            name = field if field.isupper() else f"{prefix}{field}".upper()
            problems[f"{name}={shown(problem['input'])}: {_RIGHT[name]}"] = None
        raise BadSetting("; ".join(problems)) from None


def redacted(url: str) -> str:
    """`url` without its password, for messages."""
    url = re.sub(r"(?<=[?&]password=)[^&]*", "***", url)
    scheme, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    if not at or ":" not in user:
        return url
    # Up to the last "@": a password may contain "@" and "/" that the user did not escape.
    return f"{scheme}{separator}{user.partition(':')[0]}:***@{host}"
