"""A process in which kernels are compiled or compared with plain torch, one case at a time; see `kernel_trial.py`.

    python -m cloner.engine.kernel_child MODE FILE_DESCRIPTOR

The first message is the plan. Its answer names all cases, each with the family of its kernel. Every further message
names a case, and its answer is an object without members, or with

- ``failed``: what is wrong with the kernel
- ``unfinished``: why it could not be tried
- ``ended``: the process ends, because its GPU may be in any state
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from subprocess import SubprocessError
from typing import Protocol

import torch
import triton
from pydantic import TypeAdapter

from cloner.engine.kernel_cases import StepCases, StepPlan
from cloner.engine.kernel_trial import Mode
from cloner.engine.kernels.codec import TRITON, CodecPlan
from cloner.engine.kernels.codec_check import MOST_ERROR, Case, CodecCases
from cloner.engine.kernels.codec_tiles import codec_tiles
from cloner.engine.kernels.launch import recorded_launches
from cloner.engine.kernels.tiles import Architecture
from cloner.engine.memory import is_out_of_memory
from cloner.engine.offline_kernels import use_target
from cloner.errors import one_line
from cloner.process import die_with_parent

CODEC_FRAMES = 26
"""Frames over which the codec's kernels are compared: two segments and their gap."""

CODEC_PRECISION = torch.float16

MOST_REASON = 300
"""Characters of an error that are kept."""


@dataclass(frozen=True)
class Plan:
    """What an engine will launch on a GPU. `device` is where kernels are compared; the codec has kernels only if it has
    the published size (`codec`)."""

    step: StepPlan
    codec: bool
    gpu: Architecture
    device: str

    def json(self) -> str:
        return _PLANS.dump_json(self).decode()


_PLANS = TypeAdapter(Plan)


class Cases(Protocol):
    """Of one part of the engine."""

    @property
    def families(self) -> dict[str, str]: ...

    def compile(self, name: str) -> None: ...

    def flaw(self, name: str) -> str: ...


class CodecTrial:
    """Those of the codec's kernels: one of each layer."""

    def __init__(self, gpu: Architecture, device: torch.device, *, compiled_only: bool = False) -> None:
        tiles = codec_tiles(divmod(gpu.capability, 10), gpu.shared_bytes)
        plan = CodecPlan(CODEC_PRECISION, tiles, TRITON)
        cases = CodecCases(device, CODEC_FRAMES, plan, blank=compiled_only).all()
        self._cases: dict[str, Case] = {f"{case.kernel} {case.layer}": case for case in cases}

    @property
    def families(self) -> dict[str, str]:
        return {name: case.kernel for name, case in self._cases.items()}

    def compile(self, name: str) -> None:
        with recorded_launches() as launches:
            self._cases[name].run(TRITON)
        for launch in launches:
            launch.compile()

    def flaw(self, name: str) -> str:
        error = self._cases[name].error(TRITON)
        return "" if error < MOST_ERROR[CODEC_PRECISION] else f"its results are {error:.1e} off torch's"


def make_cases(plan: Plan, mode: Mode) -> list[Cases]:
    """All cases of a plan. To compile them takes no GPU. Raises an error where Triton cannot use the GPU at all."""
    device = torch.device(plan.device)
    if mode is Mode.COMPILE:
        use_target(plan.gpu.capability)
    elif device.type == "cuda":
        triton.runtime.driver.active.get_current_device()  # builds its driver with the C compiler
    compiles = mode is Mode.COMPILE
    parts: list[Cases] = [StepCases(plan.step, plan.gpu, torch.device("meta") if compiles else device)]
    if plan.codec:
        # Not on `meta`, where a choice of rows by their values is not possible.
        parts.append(CodecTrial(plan.gpu, torch.device("cpu") if compiles else device, compiled_only=compiles))
    return parts


def answer(mode: Mode, cases: Cases, name: str) -> dict[str, str]:
    """Compile or compare one case."""
    try:
        if mode is Mode.COMPARE:
            flaw = cases.flaw(name)
            return {"failed": flaw} if flaw else {}
        cases.compile(name)
    except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises is the finding
        reason = one_line(f"{type(error).__name__}: {error}")[:MOST_REASON]
        if is_out_of_memory(error) or isinstance(error, OSError | SubprocessError):  # the disk, the C compiler
            return {"unfinished": reason, "ended": "yes"}
        return {"failed": f"does not compile: {reason}"} if mode is Mode.COMPILE else {"failed": reason, "ended": "yes"}
    return {}


@torch.inference_mode()
def serve(mode: Mode, connection: Connection) -> None:
    """Answer messages until the process at the other end is gone, or an answer says that this one ends."""
    parts = make_cases(_PLANS.validate_json(connection.recv_bytes()), mode)
    owners = {name: part for part in parts for name in part.families}

    def send(message: dict[str, str]) -> None:
        connection.send_bytes(json.dumps(message).encode())

    send({name: part.families[name] for name, part in owners.items()})
    with suppress(EOFError):
        while name := connection.recv_bytes().decode():
            found = answer(mode, owners[name], name)
            send(found)
            if "ended" in found:
                return


if __name__ == "__main__":
    die_with_parent()
    serve(Mode(sys.argv[1]), Connection(int(sys.argv[2])))
