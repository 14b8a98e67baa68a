"""CUDA's multi-process service, for the duration of a context, without changing the machine's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from ops.engine_bench.table import NotHereError

PROGRAM = "nvidia-cuda-mps-control"
TIMEOUT_S = 15.0


@contextmanager
def cuda_mps() -> Iterator[None]:
    """Processes that are started in the context share the card through a daemon of their own, which ends with it.

    Its pipes and logs are in a temporary folder, and the card's compute mode is not changed. Raises `NotHereError`.
    """
    if shutil.which(PROGRAM) is None:
        raise NotHereError(f"CUDA MPS: {PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in places.values():
            Path(place).mkdir()
        with patch.dict(os.environ, places), _daemon(Path(folder)):
            yield


@contextmanager
def _daemon(folder: Path) -> Iterator[None]:
    with subprocess.Popen([PROGRAM, "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            _await(daemon, folder / "pipe" / "control")
            yield
        finally:
            if daemon.poll() is None:
                _end(daemon)


def _end(daemon: subprocess.Popen[str]) -> None:
    """Use its own command, because a signal would not end its servers."""
    try:
        subprocess.run([PROGRAM], input="quit -t 10\n", text=True, timeout=60, check=False, capture_output=True)
        daemon.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        daemon.terminate()


def _await(daemon: subprocess.Popen[str], control: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not control.exists():
        if daemon.poll() is not None:
            output = daemon.stderr.read() if daemon.stderr else ""
            raise NotHereError(f"CUDA MPS: {PROGRAM} ended with status {daemon.returncode}: {' '.join(output.split())}")
        if time.monotonic() > deadline:
            raise NotHereError(f"CUDA MPS: {PROGRAM} was not ready within {TIMEOUT_S:.0f} s")
        time.sleep(0.1)
