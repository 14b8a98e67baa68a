"""Which of an engine's kernels work on this GPU: tried once, in child processes, and remembered beside the compiled
kernels."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import IO

import torch
from pydantic import BaseModel, ConfigDict

from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.files import CODEC_SIZES, CONFIG
from cloner.engine.checkpoint.weights import without_weights
from cloner.engine.codec.precision import has_published_size
from cloner.engine.environment import driver_version
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.kernel_trial.child import Plan
from cloner.engine.kernel_trial.processes import POLL_S
from cloner.engine.kernel_trial.step_cases import StepPlan
from cloner.engine.kernel_trial.trial import Findings, Job, Trial
from cloner.engine.kernels.codec import kernel_set as codec_set
from cloner.engine.kernels.step import kernel_set as step_set
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.memory import free_bytes
from cloner.engine.token_rows.weights import ModelSizes
from cloner.errors import LoadFailed
from cloner.events import Event
from cloner.logs import log_event

ENGINE = Path(__file__).parents[1]
"""The folder of the engine's sources."""

STEP_KERNELS = [each.name for each in fields(step_set.KernelSet)]
CODEC_KERNELS = [each.name for each in fields(codec_set.CodecKernels)]


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is about to load on a GPU, as far as its kernels depend on it."""

    checkpoint_dir: Path
    device: torch.device
    precision: torch.dtype
    slots: int
    deterministic: bool
    resampling: bool


@dataclass(frozen=True)
class CheckedKernels:
    """The kernels to use, with twins for those that do not work here; then `warning` names them."""

    step: step_set.KernelSet = step_set.TRITON
    codec: codec_set.CodecKernels = codec_set.TRITON
    warning: str = ""


class Verdict(BaseModel):
    """The file: what was tried, and the kernels that failed, each with the reason."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    identity: dict[str, str]
    failed: dict[str, str]


def check_kernels(setup: EngineSetup, cache: KernelCache, stop: threading.Event) -> CheckedKernels:
    """The kernels for this GPU, from the verdict of an earlier start or by a trial, which takes at most
    `cache.trial_s` seconds. Workers that start together wait for one of them. Raises `LoadFailed`, also when
    `stop` is set meanwhile."""
    folder = cache.open()
    identity = identify(setup)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = folder / f"verdict-{digest[:16]}.json"
    with _one_at_a_time(folder / "lock", stop):
        failed = read_verdict(path, identity)
        if failed is None:
            failed = _try(setup, cache.trial_s, path, identity, stop)
    if not failed:
        return CheckedKernels()
    line = Event.KERNELS_REPLACED.line(kernels="; ".join(f"{name}: {why}" for name, why in sorted(failed.items())))
    log_event(line.event, **line.fields)
    return CheckedKernels(step_set.TRITON.without(failed), codec_set.TRITON.without(failed), line)


def identify(setup: EngineSetup) -> dict[str, str]:
    """All that a verdict depends on."""
    card = torch.cuda.get_device_properties(setup.device)
    return {
        "card": card.name,
        "capability": f"{card.major}.{card.minor}",
        "driver": _driver(),
        "triton": version("triton"),
        "sources": _digest(*sorted(ENGINE.rglob("*.py"))),
        "model": _digest(setup.checkpoint_dir / CONFIG, setup.checkpoint_dir / CODEC_SIZES),
        "precision": str(setup.precision),
        "slots": f"{setup.slots}{' deterministic' if setup.deterministic else ''}",
        "resampling": str(setup.resampling),
    }


def read_verdict(path: Path, identity: dict[str, str]) -> dict[str, str] | None:
    """The kernels that failed, by name; None if there is no verdict for this identity, or the file is damaged."""
    with suppress(OSError, ValueError):
        verdict = Verdict.model_validate_json(path.read_bytes())
        if verdict.identity == identity and verdict.failed.keys() <= {*STEP_KERNELS, *CODEC_KERNELS}:
            return verdict.failed
    return None


def make_plan(setup: EngineSetup) -> Plan:
    """What the engine will launch, from the checkpoint's sizes. Raises `LoadFailed`."""
    sizes = ModelSizes.of_config(vars(fish.build_text2semantic(setup.checkpoint_dir).config))
    upstream = fish.build_codec(setup.checkpoint_dir)
    frames = min(fish.codec_frames(upstream), sizes.positions)
    with without_weights():
        has_kernels = has_published_size(upstream)
    precision = str(setup.precision).removeprefix("torch.")
    step = StepPlan(sizes, setup.slots, frames, setup.deterministic, setup.resampling, precision)
    return Plan(step, has_kernels, Architecture.of(setup.device), str(setup.device))


def _try(
    setup: EngineSetup, limit_s: float, path: Path, identity: dict[str, str], stop: threading.Event
) -> dict[str, str]:
    log_event(Event.KERNELS_TRIED, limit_s=limit_s)
    plan = make_plan(setup)
    findings = Trial(Job.on_card(plan.json(), limit_s, free_bytes(setup.device)), stop).run()
    if stop.is_set():
        raise _stopped()
    if not findings.unfinished:
        _keep(path, Verdict(identity=identity, failed=findings.failed))
    return _replaced(findings, [*STEP_KERNELS, *(CODEC_KERNELS if plan.codec else ())])


def _replaced(findings: Findings, wanted: list[str]) -> dict[str, str]:
    """Of the kernels that were to be tried, those that cannot be used, each with the reason."""
    left = dict.fromkeys(wanted, f"not tried, {findings.unfinished}")
    return {name: why for name, why in (left | findings.failed).items() if name not in findings.passed}


def _keep(path: Path, verdict: Verdict) -> None:
    """Write a verdict so that it is there as a whole, or not."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(verdict.model_dump_json(indent=2))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        log_event(Event.KERNEL_VERDICT_NOT_KEPT, path=path, error=error)


def _stopped() -> LoadFailed:
    return LoadFailed("the trial of kernels was stopped")


def _is_locked(file: IO[str]) -> bool:
    """Whether this process has the lock now. Raises `OSError` where there are none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _one_at_a_time(path: Path, stop: threading.Event) -> Iterator[None]:
    """Wait until no other worker tries kernels: together they would take many times as long. Raises `LoadFailed` when
    `stop` is set."""
    with ExitStack() as stack:
        with suppress(OSError):  # a full disk, or one without locks: each worker tries them
            file = stack.enter_context(path.open("w"))
            while not _is_locked(file):
                if stop.wait(POLL_S):
                    raise _stopped()
        yield


def _driver() -> str:
    """The driver's version, as far as it can be known."""
    if (version_line := driver_version()) is not None:
        return version_line
    return str(torch._C._cuda_getDriverVersion())  # type: ignore[attr-defined] # of the CUDA API


def _digest(*paths: Path) -> str:
    """Of the contents of those of the files that exist, and of their names."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
