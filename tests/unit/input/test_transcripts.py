"""Transcripts that lie beside the recording, or the codes, of a reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch_files import as_csv, problems, read, task, write

GROUP = {"id": "anna", "reference": {"audio": "anna.wav"}, "texts": ["One."]}


@pytest.fixture
def batches(folder: Path) -> dict[str, Path]:
    """Batch files of each form that may leave a transcript out."""
    rows = [task(reference_text=...)]
    return {
        "a group with a recording": write(folder / "a.json", {"speakers": [GROUP]}),
        "a group with codes": write(folder / "b.json", {"speakers": [{**GROUP, "reference": {"codes": "refs/0.npy"}}]}),
        "flat rows": write(folder / "c.json", {"tasks": rows}),
        "a table": write(folder / "d.csv", as_csv(rows)),
    }


@pytest.mark.parametrize("ending", [".lab", ".txt"])
def test_every_form_may_leave_the_transcript_to_a_file(folder: Path, batches: dict[str, Path], ending: str) -> None:
    for name in ("anna", "refs/0"):
        write(folder / f"{name}{ending}", "\ufeffSaid here.\r\n")
    for form, path in batches.items():
        assert read(path).speakers[0].reference.text == "Said here.", form


def test_a_batch_has_precedence_over_files_and_a_lab_over_a_txt(folder: Path) -> None:
    write(folder / "anna.lab", "From the lab.")
    write(folder / "anna.txt", "From the txt.")
    given = {**GROUP, "id": "ben", "reference": {"audio": "anna.wav", "text": "From the batch."}}
    batch = read(write(folder / "b.json", {"speakers": [GROUP, given]}))
    assert [speaker.reference.text for speaker in batch.speakers] == ["From the lab.", "From the batch."]


def test_without_one_the_files_are_named(batches: dict[str, Path]) -> None:
    for path in batches.values():
        (found,) = problems(path)
        stem = "anna" if "a.json" in str(path) else "0"
        assert f"has no transcript: neither {stem}.lab nor {stem}.txt is beside it; write what is said in it" in found
        assert found.endswith(f"into {stem}.lab, or give it in the batch")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b" \n", "the transcript is blank"), (b"\xff\xfe", "is not UTF-8"), (b"a" * 600_000, "has 600000 bytes")],
)
def test_one_that_cannot_be_used_is_named(folder: Path, content: bytes, expected: str) -> None:
    (folder / "anna.lab").write_bytes(content)
    (found,) = problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert f"anna.lab': the transcript {expected.removeprefix('the transcript ')}" in found


def test_a_recording_whose_transcript_would_have_too_long_a_name(folder: Path) -> None:
    name = "a" * 252 + ".au"
    (folder / "anna.wav").rename(folder / name)
    (found,) = problems(write(folder / "b.json", {"speakers": [{**GROUP, "reference": {"audio": name}}]}))
    assert "has no transcript: neither " in found


def test_one_that_leads_elsewhere_is_refused(folder: Path) -> None:
    (folder / "anna.lab").symlink_to("/etc/passwd")
    (found,) = problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert "leads to '/etc/passwd', outside of the batch's folder" in found
