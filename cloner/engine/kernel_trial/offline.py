"""Compile kernels for a GPU that is not there, and tell what each needs.

    python -m cloner.engine.kernel_trial.offline sm_89 [--largest]

With ``--largest`` one launch of each kernel, the one that takes most shared memory, and another if some start early.
One process a target: Triton keeps compiled kernels by device number, so that a second target would get the first one's.
Exit status 1 if a kernel does not compile, takes more shared memory than a block may have, reads the inputs of its
matrix products by neither TMA nor asynchronous copies of 16 bytes, or starts early and does not wait for the kernel
before it (`launch.after_previous`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import MockTensor

from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernels.launch import Launch, distinct, recorded_launches
from cloner.engine.kernels.step.layout import PAGE
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.token_rows.device import GpuStep, StepOptions
from cloner.engine.token_rows.weights import ModelSizes, StepWeights

SHAPES = ((64, 0), (128, 256))
"""Decode and prompt rows of the graphs that have each kernel's largest tile."""


_WAIT = re.compile(r"\bACQBULK\b")
_MEMORY_OR_BRANCH = re.compile(
    r"\b(LD|LDG|LDGMC|LDGSTS|ST|STG|ATOM|ATOMG|RED|REDG"
    r"|UBLK(CP|PF|RED)|UTMA(LDG|PF|REDG|STG)|TEX|TLD|TLD4|TXD|TMML|SULD|SUST|SURED|SUATOM"
    r"|BRA|BRX|BRXU|JMP|JMX|JMXU|EXIT|RET|CALL|KILL)\b"
)
"""Machine instructions of sm_90, from the list in NVIDIA's "CUDA Binary Utilities": the wait, and those that must not
stand before it (global memory, other paths)."""


class CompileOnlyDriver:
    """What Triton asks of a driver before it compiles; it launches nothing."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, _kind: str) -> str:
        return "x"


@dataclass(frozen=True)
class Compiled:
    """A kernel's needs: shared memory in bytes, and what was found `wrong`, if anything."""

    name: str
    shared: int
    wrong: str


def use_target(capability: int) -> None:
    """Compile for this architecture from now on."""
    triton.runtime.driver.set_active(CompileOnlyDriver(capability))


def compile_launch(launch: Launch, gpu: Architecture) -> Compiled:
    """Compile one launch's kernel and judge it."""
    arguments = tuple(MockTensor.wrap_dtype(argument) for argument in launch.arguments)
    try:
        kernel = Launch(launch.kernel, launch.grid, arguments, launch.options).compile()
    except Exception as error:  # noqa: BLE001 - whatever the compiler raises is the finding
        return Compiled(launch.name, 0, f"does not compile: {type(error).__name__}: {str(error)[-300:]}")
    wrong = _wrong(kernel, gpu)
    if not wrong and launch.starts_early and not waits_first(kernel.asm["sass"]):
        wrong = "starts early, and does not wait for the kernel before it"
    return Compiled(launch.name, kernel.metadata.shared, wrong)


def waits_first(machine_code: str) -> bool:
    """Whether a kernel waits for the one before it on all paths, before it reads or writes global memory."""
    wait = _WAIT.search(machine_code)
    return wait is not None and _MEMORY_OR_BRANCH.search(machine_code, 0, wait.start()) is None


def _wrong(kernel: Any, gpu: Architecture) -> str:
    shared, ptx = kernel.metadata.shared, kernel.asm["ptx"]
    if shared > gpu.shared_bytes:
        return f"takes {shared} bytes of shared memory, and {gpu.shared_bytes} are there"
    multiplies = re.search(r"mma\.sync|wgmma\.mma_async", ptx)
    wide = re.search(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x10|16)[,;\s]", ptx)
    if multiplies and not wide and "cp.async.bulk.tensor" not in ptx:
        return "reads the inputs of its products a few bytes at a time"
    return ""


def step_launches(gpu: Architecture, shapes: tuple[tuple[int, int], ...]) -> list[Launch]:
    """Distinct launches of the decoding step at the published model's size."""
    sizes = ModelSizes.of_config(CONFIGS[Preset.S1_MINI])
    weights = StepWeights.empty(sizes, torch.device("meta"), torch.bfloat16)
    slots = max(decode for decode, _ in shapes)
    step = GpuStep(weights, StepOptions(slots, 2 * slots, 32 * PAGE, 1024), gpu=gpu)
    with recorded_launches() as found:
        for decode, prompts in shapes:
            step.built.step.run(decode, prompts)
    return distinct(found)


def largest(launches: list[Launch]) -> list[Launch]:
    """Of each kernel the launch with the largest tile and the deepest pipeline, of those that start early, and of the
    others."""

    def size(launch: Launch) -> int:
        options = launch.options
        rows = options.get("BM", 1) + options.get("BN", 1) * (2 if options.get("GATED") else 1)
        return int(rows * options.get("BK", 1) * options.get("num_stages", 1))

    found: dict[tuple[str, bool], Launch] = {}
    for launch in launches:
        key = (launch.name, launch.starts_early)
        if key not in found or size(launch) > size(found[key]):
            found[key] = launch
    return list(found.values())


def compiled(target: str, *, all_of_them: bool) -> Iterator[Compiled]:
    """Kernels of the step for a target such as ``sm_89``."""
    gpu = Architecture.named(int(target.removeprefix("sm_")))
    use_target(gpu.capability)
    launches = step_launches(gpu, SHAPES)
    for launch in launches if all_of_them else largest(launches):
        yield compile_launch(launch, gpu)


def main() -> int:
    """Print a line a kernel; 1 if one is wrong."""
    began, target = time.monotonic(), sys.argv[1]
    found = []
    for kernel in compiled(target, all_of_them="--largest" not in sys.argv):
        print(f"{kernel.name} {kernel.shared} {kernel.wrong or 'ok'}", flush=True)
        found.append(kernel)
    bad = sum(bool(kernel.wrong) for kernel in found)
    print(f"{target}: {len(found)} kernels, {bad} wrong, {time.monotonic() - began:.0f} s")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
