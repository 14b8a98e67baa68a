"""Compile kernels for a GPU that is not there, and look at what the compiler made.

One process a target: Triton keeps compiled kernels by device number, not by target.

    python -m tests.unit.engine.kernel_trial.offline 89 codec
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.runtime.jit import JITFunction

from cloner.engine.kernel_trial.offline import use_target

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""Shared memory that a block may have (``shared_memory_per_block_optin``), by compute capability."""


@dataclass(frozen=True)
class Compiled:
    """What a kernel needs on a target."""

    kernel: str
    constants: dict[str, Any]
    registers: int
    spilled_bytes: int
    shared_bytes: int
    products: int
    """Instructions for matrix products; so are the others counted."""
    tma_loads: int
    wide_copies: int
    """Asynchronous copies of 16 bytes to shared memory."""


def compile_all(capability: int, launch: Callable[[], None]) -> list[Compiled]:
    """Compile whatever kernels `launch` launches on CPU tensors, instead of running them."""
    use_target(capability)
    compile_kernel = JITFunction.run
    found: dict[str, Compiled] = {}

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = compile_kernel(self, *args, grid=grid, warmup=True, **options)
        if kernel.hash not in found:
            constants = {name: value for name, value in options.items() if isinstance(value, int)}
            found[kernel.hash] = described(self.__name__, constants, kernel, capability)

    JITFunction.run = run
    try:
        launch()
    finally:
        JITFunction.run = compile_kernel
    return list(found.values())


def described(name: str, constants: dict[str, Any], kernel: Any, capability: int) -> Compiled:
    """What the assembler says of a kernel that Triton has compiled."""
    ptx = kernel.asm["ptx"]
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    newer = folder / "ptxas-blackwell"
    assembler = newer if capability >= 100 and newer.exists() else folder / "ptxas"
    target = f"sm_{capability}" + ("a" if capability >= 90 else "")
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [str(assembler), "-v", "--gpu-name", target, file.name, "-o", "/dev/null"]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)[,;\s]", ptx)
    return Compiled(
        name,
        constants,
        registers=int(_found(r"Used (\d+) registers", log)),
        spilled_bytes=int(_found(r"(\d+) bytes spill stores", log)),
        shared_bytes=kernel.metadata.shared,
        products=len(re.findall(r"mma\.sync|wgmma\.mma_async", ptx)),
        tma_loads=len(re.findall(r"cp\.async\.bulk\.tensor", ptx)),
        wide_copies=sum(int(size, 0) == 16 for size in copies),
    )


def _found(pattern: str, log: str) -> str:
    match = re.search(pattern, log)
    assert match, log
    return match.group(1)


def codec_launches(capability: int, *, greatest: bool) -> Callable[[], None]:
    """Launches of all kernels of the published codec; with `greatest`, of each kernel's greatest tile alone."""
    from tests.unit.engine.kernels.codec.launches import launch_all, launch_greatest

    return lambda: (launch_greatest if greatest else launch_all)(capability, SHARED_BYTES[capability])


def main() -> None:
    """Print what was compiled as JSON lines."""
    capability, which = int(sys.argv[1]), sys.argv[2:]
    for compiled in compile_all(capability, codec_launches(capability, greatest="greatest" in which)):
        print(json.dumps(asdict(compiled)))


if __name__ == "__main__":
    main()
