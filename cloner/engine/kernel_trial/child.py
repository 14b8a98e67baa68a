"""Processes in which kernels are compiled or compared with plain torch, one case at a time; see `trial.py`.

    python -m cloner.engine.kernel_trial.child FILE_DESCRIPTOR

This is the fork server (`processes.ForkServer`). The first message that it gets is the plan, and its answer, as
all behind "=", names all cases, each with the family of its kernel. Then it forks children, and tells of their end.

A child sends an empty object when it is ready. Every message that it gets names a case, and its answer is an object
without members, or with

- ``failed``: what is wrong with the kernel
- ``unfinished``: why it could not be tried
- ``ended``: the process ends, because its GPU may be in any state
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from socket import recv_fds, socket
from subprocess import SubprocessError
from typing import Protocol

import torch
import triton
from pydantic import TypeAdapter
from triton.runtime.cache import triton_key

from cloner.engine.kernel_trial.codec_cases import MOST_ERROR, Case, CodecCases
from cloner.engine.kernel_trial.offline import use_target
from cloner.engine.kernel_trial.processes import MOST_BYTES, POLL_S, QUIT_S, Mode
from cloner.engine.kernel_trial.step_cases import StepCases, StepPlan
from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan
from cloner.engine.kernels.codec.tiles import codec_tiles
from cloner.engine.kernels.launch import recorded_launches
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.memory import is_out_of_memory
from cloner.errors import one_line
from cloner.process import PARENT_PID, die_with_parent

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
    """All cases of a plan. To compile them takes no GPU."""
    compiles, device = mode is Mode.COMPILE, torch.device(plan.device)
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


def serve(mode: Mode, plan: Plan, compiled: list[Cases], connection: Connection) -> None:
    """In a child: answer messages until the process at the other end is gone, or an answer says that this one ends.
    Raises an error where Triton cannot use the GPU at all."""
    parts = compiled
    if mode is Mode.COMPILE:
        use_target(plan.gpu.capability)
    else:
        if torch.device(plan.device).type == "cuda":
            triton.runtime.driver.active.get_current_device()  # builds its driver with the C compiler
        parts = make_cases(plan, mode)
    owners = {name: part for part in parts for name in part.families}

    def send(message: dict[str, str]) -> None:
        connection.send_bytes(json.dumps(message).encode())

    send({})
    with suppress(EOFError):
        while name := connection.recv_bytes().decode():
            found = answer(mode, owners[name], name)
            send(found)
            if "ended" in found:
                return


@torch.inference_mode()
def serve_forks(requests: socket) -> None:
    """Make the cases of a plan, and fork children, until the process at the other end is gone. This process has one
    thread, whatever the environment says (`processes.ONE_THREAD`)."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)

    def reply(text: str) -> None:
        requests.send(f"={text}".encode())

    plan = _PLANS.validate_json(requests.recv(MOST_BYTES))
    compiled = make_cases(plan, Mode.COMPILE)
    triton_key()  # kept from now on, in the children too
    reply(json.dumps({name: family for part in compiled for name, family in part.families.items()}))
    while True:
        message, descriptors, _flags, _address = recv_fds(requests, MOST_BYTES, 2)
        match message.decode().split():
            case ["fork", mode]:
                connection, output = descriptors
                reply(str(_fork(lambda: serve(Mode(mode), plan, compiled, Connection(connection)), requests, output)))  # noqa: B023
                os.close(connection)
                os.close(output)
            case ["status", child]:
                reply(_status(int(child)))
            case ["kill", child]:
                reply(_kill(int(child)))
            case _:
                return


def _fork(work: Callable[[], None], requests: socket, output: int) -> int:
    """The process id of a child that does `work`, and prints to `output`."""
    server, status = os.getpid(), 1
    if child := os.fork():
        return child
    try:
        requests.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ[PARENT_PID] = str(server)
        die_with_parent()
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - what it prints is the finding
        traceback.print_exc()
    finally:
        os._exit(status)  # also if it cannot print: nothing of the fork server's is to be done here


def _status(child: int) -> str:
    """How it has ended, empty if it has not."""
    ended, status = os.waitpid(child, os.WNOHANG)
    return str(os.waitstatus_to_exitcode(status)) if ended else ""


def _kill(child: int) -> str:
    """End it, and wait for that: a GPU's driver takes a moment. Its status, empty if that has not been enough."""
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + QUIT_S / 2
    while not (status := _status(child)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return status


if __name__ == "__main__":
    die_with_parent()
    with socket(fileno=int(sys.argv[1])) as requests:
        serve_forks(requests)
