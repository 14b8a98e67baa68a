"""`cloner checkpoint pull` from a server with the API of the Hugging Face hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cloner.engine.checkpoint.files import FILES
from tests.support.model_hub import COMMIT, running_hub

MODEL, TOKEN = "fishaudio/openaudio-s1-mini", "hf_test"

CONTENTS = {name: name.encode() * 1000 for name in FILES}


def pull(directory: Path, files: Mapping[str, bytes]) -> subprocess.CompletedProcess[str]:
    """Pull from a hub that publishes the digests of `CONTENTS` and serves `files`."""
    with running_hub(MODEL, files, TOKEN, published=CONTENTS) as port:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": TOKEN, "HF_HOME": str(directory.parent / "home")}
        return subprocess.run(
            [sys.executable, "-m", "cloner", "checkpoint", "pull", "openaudio-s1-mini", "--to", str(directory)],
            env={**os.environ, **hub},
            capture_output=True,
            text=True,
            check=False,
        )


def test_a_pull_fetches_what_is_published(tmp_path: Path) -> None:
    pulled = pull(tmp_path / "checkpoint", CONTENTS)
    assert pulled.returncode == 0, pulled.stderr
    assert {name: (tmp_path / "checkpoint" / name).read_bytes() for name in FILES} == CONTENTS


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["model.pth", "config.json"])
def test_a_file_that_is_not_the_published_one_is_removed_and_fetched_again(wrong: str, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    changed = bytes([CONTENTS[wrong][0] ^ 1]) + CONTENTS[wrong][1:]
    pulled = pull(directory, {**CONTENTS, wrong: changed})
    assert pulled.returncode == 1
    where = f"https://huggingface.co/{MODEL}"
    said = f"{wrong} in {directory}: not the digest that {where} publishes for commit {COMMIT}; removed, so pull again"
    assert said in pulled.stderr
    assert not (directory / wrong).exists()
    assert pull(directory, CONTENTS).returncode == 0
    assert (directory / wrong).read_bytes() == CONTENTS[wrong]
