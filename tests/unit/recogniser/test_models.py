"""Finding a recogniser's model, and fetching one from a server with the API of the Hugging Face hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cloner.errors import BadSetting
from cloner.recogniser.models import RECOGNISER, find_model
from cloner.validation import shown
from tests.support.model_hub import COMMIT, running_hub

REPO, TOKEN = "Systran/faster-whisper-small", "hf_test"
NEEDED = ("config.json", "model.bin", "tokenizer.json")
CONTENTS = {name: name.encode() * 1000 for name in (*NEEDED, "vocabulary.txt")}


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in NEEDED:
        (folder / name).write_text("{}")
    return folder


def pull(name: str, cache: Path, files: Mapping[str, bytes] = CONTENTS) -> subprocess.CompletedProcess[str]:
    """Pull from a hub that publishes the digests of `CONTENTS`, and a file that is not needed, and serves `files`."""
    published = {**CONTENTS, "README.md": b"read me"}
    with running_hub(REPO, {"README.md": b"read me", **files}, TOKEN, published=published) as port:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": TOKEN, "HF_HOME": str(cache.parent / "home")}
        return subprocess.run(
            [sys.executable, "-m", "cloner", "recogniser", "pull", name],
            env={**os.environ, **hub, "CLONER_RECOGNISER_CACHE": str(cache)},
            capture_output=True,
            text=True,
        )


def test_a_model_is_a_folder_or_a_name_that_was_fetched(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    small = write_model(tmp_path / "cache/Systran--faster-whisper-small")
    pinned = write_model(tmp_path / "cache/me--my-whisper@v1")
    cache = tmp_path / "cache"
    assert find_model(folder, cache) == folder
    assert [find_model(Path(name), cache) for name in ("small", "Systran/faster-whisper-small")] == [small, small]
    assert find_model(Path("me/my-whisper@v1"), cache) == pinned


def test_a_published_name_is_no_folder_that_happens_to_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "batch/small")
    fetched = write_model(tmp_path / "cache/Systran--faster-whisper-small")
    monkeypatch.chdir(tmp_path / "batch")
    assert find_model(Path("small"), tmp_path / "cache") == fetched
    assert find_model(Path("./small").resolve(), tmp_path / "cache") == tmp_path / "batch/small"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            "small@v2",
            "no model of that name has been fetched; run `cloner recogniser pull small@v2`, or name the folder",
        ),
        ("great", "there is no such folder, and 'great' is no known recogniser: give tiny, tiny.en, base"),
        ("a" * 300 + "/b", "there is no such folder, and no model of that name has been fetched; run `cloner"),
        ("half", "half has no model.bin, tokenizer.json; name the folder of a model of Whisper for CTranslate2"),
    ],
)
def test_what_is_no_model_is_one_sentence(
    wanted: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.json").write_text("{}")
    write_model(tmp_path / "cache/Systran--faster-whisper-small")
    with pytest.raises(BadSetting) as caught:
        find_model(Path(wanted), tmp_path / "cache")
    assert caught.value.message.startswith(f"CLONER_RECOGNISER={shown(wanted)}: ")
    assert expected in caught.value.message


def test_a_home_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for wanted, cache in ((Path("~no-such-user/model"), tmp_path), (Path("small"), Path("~no-such-user/cache"))):
        with pytest.raises(
            BadSetting, match=r"~no-such-user/.*: there is no such home folder; name a folder without ~"
        ):
            find_model(wanted, cache)


def test_a_pull_fetches_the_files_of_a_model_and_nothing_else(tmp_path: Path) -> None:
    pulled = pull("small", tmp_path / "cache")
    assert pulled.returncode == 0, pulled.stderr
    folder = tmp_path / "cache/Systran--faster-whisper-small"
    assert pulled.stdout == f"{folder}\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert set(CONTENTS) < set(RECOGNISER.files)
    assert find_model(Path("small"), tmp_path / "cache") == folder
    again = pull("Systran/faster-whisper-small", tmp_path / "cache")
    assert (again.returncode, again.stdout) == (2, "")
    assert f"{folder} is there already: use it, or delete it first" in again.stderr


@pytest.mark.slow
def test_a_folder_has_its_name_only_when_every_file_is_the_published_one(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = cache / f"Systran--faster-whisper-small@{COMMIT}"
    partial = cache / f".{folder.name}.partial"
    changed = {**CONTENTS, "model.bin": b"M" + CONTENTS["model.bin"][1:]}
    for files, said in (
        (changed, f"model.bin in {partial}: not the digest that"),
        ({}, f"or copy its folder by hand to {folder}"),
    ):
        failed = pull(f"{REPO}@{COMMIT}", cache, files)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr
        assert [*cache.iterdir()] == [partial]
    assert pull(f"{REPO}@{COMMIT}", cache).returncode == 0
    assert [*cache.iterdir()] == [folder]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("great", "'great' is no known recogniser: give tiny, tiny.en"),
        ("..", "'..' is no known recogniser"),
        ("a" * 300 + "/b", "is not the name of a model"),
        ("a/b/c", "'a/b/c' is not the name of a model: give it as owner/model"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, expected: str, tmp_path: Path) -> None:
    refused = pull(name, tmp_path / "cache")
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert not (tmp_path / "cache").exists()
