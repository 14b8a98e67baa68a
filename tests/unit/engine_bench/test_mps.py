"""Against a stand-in for NVIDIA's control program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.engine_bench.mps import PROGRAM, cuda_mps
from ops.engine_bench.table import NotHereError

DAEMON = """#!/bin/sh
if [ "$1" = -f ]; then
  mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"
  read -r word < "$CUDA_MPS_PIPE_DIRECTORY/control"
  echo "$word" > "{told}"
else
  cat > "$CUDA_MPS_PIPE_DIRECTORY/control"
fi
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the control program would be."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / PROGRAM


def test_the_daemon_has_places_of_its_own_and_is_told_to_end(program: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    program.write_text(DAEMON.format(told=told))
    program.chmod(0o755)
    with cuda_mps():
        pipe = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert (pipe / "control").exists()
        assert Path(os.environ["CUDA_MPS_LOG_DIRECTORY"]).parent == pipe.parent
    assert told.read_text() == "quit -t 10\n"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not pipe.exists()


def test_a_daemon_that_does_not_start_says_why(program: Path) -> None:
    program.write_text("#!/bin/sh\necho 'no device\nfound' >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(NotHereError, match="ended with status 3: no device found"), cuda_mps():
        pytest.fail("nothing is measured without it")


def test_where_it_is_not_installed_that_is_said(program: Path) -> None:
    with pytest.raises(NotHereError, match="nvidia-cuda-mps-control is not installed"), cuda_mps():
        pytest.fail("nothing is measured without it")
