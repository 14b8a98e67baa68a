"""CUDA's multi-process service for a while, without changing anything on the machine."""

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
PATIENCE_S = 15.0


@contextmanager
def cuda_mps() -> Iterator[None]:
    """Processes that are started inside share the card through a daemon of their own, which ends with this.

    Its pipes and logs are in a folder of their own, and the card's compute mode stays as it is. Raises `NotHereError`.
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
    """By its own command, because a signal would leave its servers behind."""
    try:
        subprocess.run([PROGRAM], input="quit -t 10\n", text=True, timeout=60, check=False, capture_output=True)
        daemon.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        daemon.terminate()


def _await(daemon: subprocess.Popen[str], control: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not control.exists():
        if daemon.poll() is not None:
            said = daemon.stderr.read() if daemon.stderr else ""
            raise NotHereError(f"CUDA MPS: {PROGRAM} ended with status {daemon.returncode}: {' '.join(said.split())}")
        if time.monotonic() > deadline:
            raise NotHereError(f"CUDA MPS: {PROGRAM} was not ready within {PATIENCE_S:.0f} s")
        time.sleep(0.1)
