"""One tiny checkpoint and one loaded engine for all tests of this folder: making and loading take a second each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cloner.engine.base import Voice
from cloner.engine.checkpoint import Preset, init_checkpoint
from cloner.engine.upstream import UpstreamEngine

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights. Not to be changed: see `copy_of_tiny`."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    init_checkpoint(directory, Preset.TINY)
    return directory


@pytest.fixture
def copy_of_tiny(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.fixture(scope="session")
def engine(tiny: Path) -> Iterator[UpstreamEngine]:
    """A loaded engine, for all tests. A test that changes its models changes them back."""
    engine = UpstreamEngine(tiny, CPU, torch.float32)
    engine.load(lambda _line: None)
    yield engine
    engine.close()


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


def make_voice(seed: int, frames: int = 20) -> Voice:
    codes = np.random.default_rng(seed).integers(0, 1024, (10, frames), dtype=np.int32)
    return Voice(codes, "What the reference says.")
