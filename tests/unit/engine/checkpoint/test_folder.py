from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from cloner.engine.checkpoint import fish, random_weights
from cloner.engine.checkpoint.files import FILES
from cloner.engine.checkpoint.folder import PARTIAL, check_checkpoint, init_checkpoint
from cloner.engine.checkpoint.presets import CONFIGS, Preset, vocabulary
from cloner.errors import ClonerError, LoadFailed, UsageError


def test_a_made_checkpoint_has_every_file(tiny: Path) -> None:
    check_checkpoint(tiny)
    assert {path.name for path in tiny.iterdir()} == {*FILES, "codec.json", "random_weights.txt"}


def test_the_error_for_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        check_checkpoint(tmp_path / "nothing")
    for part in ("nothing does not exist", "`cloner checkpoint pull`", "`cloner checkpoint init`"):
        assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_files_are_named(copy_of_tiny: Path) -> None:
    (copy_of_tiny / "codec.pth").unlink()
    (copy_of_tiny / "config.json").unlink()
    with pytest.raises(LoadFailed, match=r"has no readable config\.json, codec\.pth: fetch"):
        check_checkpoint(copy_of_tiny)


@pytest.mark.parametrize(("preset", "words"), [(Preset.TINY, 256), (Preset.SMALL, 256), (Preset.S1_MINI, 151_665)])
def test_vocabularies_fill_what_the_special_tokens_leave(preset: Preset, words: int) -> None:
    found = list(vocabulary(preset))
    assert len(found) == len(set(found)) == words
    assert found[:256] == [bytes([value]) for value in range(256)]
    assert words + len(fish.special_tokens()) == CONFIGS[preset]["vocab_size"]


def test_special_tokens_carry_the_ids_that_fish_speech_gives_them(tiny: Path) -> None:
    written = json.loads((tiny / "special_tokens.json").read_text())
    tokenizer = fish.build_text2semantic(tiny).tokenizer
    assert written == tokenizer.all_special_tokens_with_ids
    assert len(tokenizer.semantic_id_to_token_id) == 4096


@pytest.mark.parametrize(("preset", "millions"), [(Preset.TINY, 3.54), (Preset.SMALL, 20.0), (Preset.S1_MINI, 860.0)])
def test_models_have_their_published_size(preset: Preset, millions: float, tiny: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        (tmp_path / name).symlink_to(tiny / name)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[preset]))
    weights = fish.build_text2semantic(tmp_path).state_dict().values()
    assert sum(weight.numel() for weight in weights) / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_full_codec_has_its_published_size(tmp_path: Path) -> None:
    weights = fish.build_codec(tmp_path).state_dict()
    size = sum(weight.numel() for name, weight in weights.items() if not name.endswith(fish.REBUILT))
    assert size / 1e6 == pytest.approx(391, rel=0.01)


def test_the_seed_decides_the_weights(tiny: Path, tmp_path: Path) -> None:
    def weights(directory: Path) -> list[bytes]:
        return [(directory / name).read_bytes() for name in ("model.pth", "codec.pth")]

    init_checkpoint(tmp_path / "same", Preset.TINY, seed=0)
    init_checkpoint(tmp_path / "other", Preset.TINY, seed=1)
    assert weights(tmp_path / "same") == weights(tiny)
    assert all(one != other for one, other in zip(weights(tmp_path / "other"), weights(tiny), strict=True))


def test_the_codec_is_written_without_its_masks(tiny: Path) -> None:
    names = torch.load(tiny / "codec.pth", weights_only=True).keys()
    assert names
    assert not [name for name in names if "mask" in name]


def test_a_folder_that_holds_a_checkpoint_is_left_alone(copy_of_tiny: Path) -> None:
    before = (copy_of_tiny / "model.pth").stat()
    with pytest.raises(UsageError, match="holds a checkpoint already"):
        init_checkpoint(copy_of_tiny, Preset.SMALL)
    assert (copy_of_tiny / "model.pth").stat() == before


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        init_checkpoint(tmp_path, Preset.TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot be used as a folder: Not a directory"):
        init_checkpoint(tmp_path / "file", Preset.TINY)


def test_the_files_of_a_killed_init_are_no_checkpoint_and_the_next_init_removes_them(
    tiny: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoint"
    (directory / PARTIAL).mkdir(parents=True)
    (directory / PARTIAL / "model.pth").write_bytes(b"half")
    with pytest.raises(LoadFailed):
        check_checkpoint(directory)
    init_checkpoint(directory, Preset.TINY)
    assert {path.name for path in directory.iterdir()} == {path.name for path in tiny.iterdir()}


def test_an_init_that_stops_while_moving_files_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Path.rename
    moved: list[str] = []

    def stop_before_the_last(self: Path, target: Path) -> Path:
        if len(moved) == len(FILES) + 1:  # one is left: there are codec.json and the mark, too
            raise KeyboardInterrupt
        moved.append(target.name)
        return move(self, target)

    monkeypatch.setattr(Path, "rename", stop_before_the_last)
    with pytest.raises(KeyboardInterrupt):
        init_checkpoint(tmp_path, Preset.TINY)
    with pytest.raises(LoadFailed, match=r"has no readable config\.json:"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")], ids=repr
)
def test_a_full_disk_is_reported_and_no_files_are_left(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_directory: Path, _seed: int) -> None:
        raise failure

    monkeypatch.setattr(random_weights, "write", fail)
    with pytest.raises(ClonerError, match=r"no checkpoint could be written to .*(No space left|write failed)"):
        init_checkpoint(tmp_path / "checkpoint", Preset.TINY)
    assert list((tmp_path / "checkpoint").iterdir()) == []
