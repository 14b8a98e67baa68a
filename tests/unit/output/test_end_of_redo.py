"""The close of redos whose takes have failed: what they were about to replace gets its name again."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

import pytest

from cloner.batch import Redo
from cloner.errors import RecordFailed, RecordUnavailable
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import discard_journals
from cloner.output.record import Record
from cloner.output.redo import REDO, end_replacing, noted_takes, open_redo
from cloner.output.takes import Takes
from cloner.protocol.messages import SpeakerSliceRow
from tests.support.edited_batches import LINES, Killed, batch, reused, speak
from tests.unit.output.test_redo import MIDDLE, all_takes, close, line_of, redo_of, speak_takes


def test_a_take_without_a_line_that_is_given_up_gives_the_name_back(tmp_path: Path) -> None:
    """Its process dies between the file and the line, and the batch is closed without it."""
    speak(tmp_path, batch("first", LINES))
    first = (tmp_path / MIDDLE).read_bytes()
    killed = redo_of("killed")
    with pytest.raises(Killed):
        speak_takes(tmp_path, killed, lines=False)
    assert (tmp_path / MIDDLE).read_bytes() != first
    close(tmp_path, killed)
    assert (tmp_path / MIDDLE).read_bytes() == first
    assert reused(tmp_path, batch("again", LINES)) == {*LINES}


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, RecordUnavailable), (errno.EACCES, RecordFailed)], ids=["it may pass", "for good"]
)
def test_a_file_that_cannot_be_given_its_name_again_does_not_keep_the_others_from_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[RecordFailed]
) -> None:
    speak(tmp_path, batch("first", LINES))
    part = batch("redo", LINES).part(lambda row: row.segment in {1, 2})
    killed = part.model_copy(update={"redo": Redo(), "partial": True, "chunks": redo_of("redo").chunks})
    killed.chunks[0].slices[0] = SpeakerSliceRow(speaker=0, start=0, stop=2, position=1, texts=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "anna").iterdir()}
    with pytest.raises(Killed):
        speak_takes(tmp_path, killed, lines=False)
    outputs = OutputRoot(tmp_path)
    for index, output in ((1, MIDDLE), (2, "anna/0003.wav")):
        assert (tmp_path / output).read_bytes() != before[PurePosixPath(output).name], index
        outputs.remove(output)
    end = Takes.end_replacing
    calls: list[str] = []

    def fail_first(takes: Takes, output: str, key: str, digest: str) -> None:
        calls.append(output)
        if len(calls) == 1:
            raise OSError(number, os.strerror(number), output)
        end(takes, output, key, digest)

    monkeypatch.setattr(Takes, "end_replacing", fail_first)
    with pytest.raises(RecordFailed) as caught:
        end_replacing(outputs, "redo", {1, 2})
    assert type(caught.value) is kind
    assert (calls, outputs.is_taken(MIDDLE)) == ([MIDDLE, "anna/0003.wav"], False)
    assert (tmp_path / "anna/0003.wav").read_bytes() == before["0003.wav"]
    end_replacing(outputs, "redo", {1, 2})
    assert {path.name: path.read_bytes() for path in (tmp_path / "anna").iterdir()} == before


def test_noted_takes_are_read_one_by_one_and_not_at_all_if_nothing_failed(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    open_redo(redo_of("redo"), OutputRoot(tmp_path))
    with (tmp_path / ".cloner/redo" / REDO).open("a") as file:
        file.write("[[1]]\n")
    assert next(iter(noted_takes(OutputRoot(tmp_path), "redo"))).output == MIDDLE
    end_replacing(OutputRoot(tmp_path), "redo", ())


@pytest.mark.parametrize("is_removed", [False, True], ids=["it is there", "the close has removed it"])
def test_a_take_without_a_line_leaves_the_one_before_it_to_later_batches(tmp_path: Path, is_removed: bool) -> None:
    """Its process dies between the file and the line, and its batch is forgotten."""
    speak(tmp_path, batch("first", LINES))
    first = (tmp_path / MIDDLE).read_bytes()
    with pytest.raises(Killed):
        speak_takes(tmp_path, redo_of("killed"), lines=False)
    if is_removed:
        discard_journals(Record(tmp_path, "killed"), OutputRoot(tmp_path), [MIDDLE])
        assert not (tmp_path / MIDDLE).exists()
    assert reused(tmp_path, batch("again", LINES)) == {*LINES}
    assert (tmp_path / MIDDLE).read_bytes() == first


def test_a_take_that_is_the_same_as_the_one_before_it_is_not_removed(tmp_path: Path) -> None:
    """It is generated with the same seed, and its process dies before it can write the line."""
    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("redo", seed=7))
    redone = (tmp_path / MIDDLE).read_bytes()
    killed = redo_of("killed", seed=7)
    with pytest.raises(Killed):
        speak_takes(tmp_path, killed, lines=False)
    close(tmp_path, killed)
    assert (tmp_path / MIDDLE).read_bytes() == redone
    assert reused(tmp_path, batch("again", LINES)) == {*LINES}
    assert line_of(tmp_path, "again").take == 2


def test_a_batch_that_is_cancelled_before_it_is_opened_replaces_nothing(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    before = all_takes(tmp_path)
    end_replacing(OutputRoot(tmp_path), "redo", {1})
    assert all_takes(tmp_path) == before
