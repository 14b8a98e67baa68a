from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub import ModelInfo, constants, errors

from cloner.engine.checkpoint.files import FILES
from cloner.engine.checkpoint.pull import pull_checkpoint
from cloner.errors import BadSetting, ClonerError, MissingPackage, UsageError
from tests.support.model_hub import COMMIT, sibling

Hub = Callable[..., None]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hub], list[dict[str, Any]]]:
    """Replace what asks the hub by stubs; returns the list of calls of `snapshot_download`."""

    def install(behaviour: Hub) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def snapshot_download(repo_id: str, **options: Any) -> None:
            calls.append({"repo_id": repo_id, **options})
            behaviour(options["local_dir"])

        def model_info(_api: Any, repo_id: str, revision: str | None, **_options: Any) -> ModelInfo:
            published = [sibling(name, b"x") for name in FILES]
            return ModelInfo(id=repo_id, sha=revision or COMMIT, siblings=published)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        return calls

    return install


def complete(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (directory / name).write_text("x")


def failing(error: Exception) -> Hub:
    def behave(_directory: Path) -> None:
        raise error

    return behave


@pytest.mark.parametrize(
    ("name", "repo"),
    [("openaudio-s1-mini", "fishaudio/openaudio-s1-mini"), ("somebody/their-model", "somebody/their-model")],
)
def test_a_pull_fetches_the_checkpoint_and_nothing_else(name: str, repo: str, hub: Any, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    calls = hub(complete)
    assert pull_checkpoint(name, directory) == directory
    assert calls == [{"repo_id": repo, "revision": COMMIT, "local_dir": directory, "allow_patterns": list(FILES)}]


def test_a_pull_may_name_a_revision(hub: Any, tmp_path: Path) -> None:
    calls = hub(complete)
    pull_checkpoint("openaudio-s1-mini@v1.2", tmp_path / "checkpoint")
    assert (calls[0]["repo_id"], calls[0]["revision"]) == ("fishaudio/openaudio-s1-mini", "v1.2")


def test_the_error_for_an_unknown_revision_names_it(hub: Any, tmp_path: Path) -> None:
    hub(failing(errors.RevisionNotFoundError("404", response=MagicMock())))
    with pytest.raises(ClonerError, match="fishaudio/openaudio-s1-mini has no revision 'v9': give a branch"):
        pull_checkpoint("openaudio-s1-mini@v9", tmp_path / "checkpoint")


def test_an_unknown_short_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="'s2' is no known checkpoint: give openaudio-s1-mini, or a full name"):
        pull_checkpoint("s2", tmp_path / "checkpoint")


def test_a_malformed_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="owner/model"):
        pull_checkpoint("a/b/c", tmp_path / "checkpoint")


def test_the_error_for_a_gated_model_says_where_to_accept_its_licence(hub: Any, tmp_path: Path) -> None:
    hub(failing(errors.GatedRepoError("403", response=MagicMock())))
    with pytest.raises(ClonerError) as caught:
        pull_checkpoint("openaudio-s1-mini", tmp_path / "checkpoint")
    for part in ("https://huggingface.co/fishaudio/openaudio-s1-mini", "hf auth login", str(tmp_path / "checkpoint")):
        assert part in caught.value.message


def test_the_error_for_an_unknown_model_says_to_check_its_name(hub: Any, tmp_path: Path) -> None:
    hub(failing(errors.RepositoryNotFoundError("404", response=MagicMock())))
    with pytest.raises(ClonerError, match=r"there is no model somebody/nothing that you may see.*by hand to"):
        pull_checkpoint("somebody/nothing", tmp_path / "checkpoint")


def test_without_a_network_the_folder_can_be_copied_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        ClonerError, match=r"could not be fetched \(OfflineModeIsEnabled.*network.*by hand to"
    ) as caught:
        pull_checkpoint("openaudio-s1-mini", tmp_path / "checkpoint")
    assert "\n" not in caught.value.message


def test_a_full_disk_is_reported(hub: Any, tmp_path: Path) -> None:
    hub(failing(OSError(28, "No space left on device")))
    with pytest.raises(ClonerError, match="No space left on device"):
        pull_checkpoint("openaudio-s1-mini", tmp_path / "checkpoint")


def test_a_model_of_another_kind_is_recognised(hub: Any, tmp_path: Path) -> None:
    def without_codec(directory: Path) -> None:
        complete(directory)
        (directory / "codec.pth").unlink()

    hub(without_codec)
    with pytest.raises(ClonerError, match=r"has no codec\.pth after the pull"):
        pull_checkpoint("somebody/gpt", tmp_path / "checkpoint")


def test_the_error_without_the_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackage, match="pip install huggingface-hub"):
        pull_checkpoint("openaudio-s1-mini", tmp_path / "checkpoint")


def test_a_folder_with_something_else_in_it_is_left_alone(hub: Any, tmp_path: Path) -> None:
    calls = hub(complete)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        pull_checkpoint("openaudio-s1-mini", tmp_path)
    assert calls == []


def test_an_interrupted_pull_is_resumed(hub: Any, tmp_path: Path) -> None:
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "config.json").write_text("x")
    hub(complete)
    assert pull_checkpoint("openaudio-s1-mini", tmp_path) == tmp_path
