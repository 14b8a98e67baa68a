"""One tiny checkpoint and one loaded engine for all tests of this folder: making and loading take a second each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cloner.engine.base import Voice
from cloner.engine.checkpoint.folder import init_checkpoint
from cloner.engine.checkpoint.presets import Preset
from cloner.engine.upstream import UpstreamEngine
from tests.support.engine_requests import CPU, make_voice


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads gain nothing on models of this size, and lose much if other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights. Tests that change files use `copy_of_tiny`."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    init_checkpoint(directory, Preset.TINY)
    return directory


@pytest.fixture
def copy_of_tiny(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.fixture(scope="session")
def engine(tiny: Path) -> Iterator[UpstreamEngine]:
    """A loaded engine, for all tests. A test that changes its models restores them."""
    engine = UpstreamEngine(tiny, CPU, torch.float32)
    engine.load(lambda _line: None)
    yield engine
    engine.close()


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)
