"""References that cannot be used: each table has what becomes of a file, and the error message."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from cloner import Client
from cloner.batch import Reference, ReferenceKind
from cloner.input.references import load_reference, measure_file
from cloner.protocol.references import audio_from_bytes
from cloner.settings import Settings
from tests.support import bad_files as bad
from tests.support.bad_inputs import CommandLine, Refuse, nothing_done
from tests.support.batch_files import save_recording, task

MB = 1024**2

CODES: dict[str, tuple[bad.Make, str]] = {
    "an array of objects": (bad.pickled_array, "of type object, and whole numbers are needed"),
    "a pickle": (bad.pickled, "not a .npy file of codes"),
    "fractions": (bad.codes(bad.good_codes().astype(np.float32)), "of type float32"),
    "texts": (bad.codes([["a"] * 20] * 10), "of type <U1"),
    "truths": (bad.codes(np.ones((10, 20), bool)), "of type bool"),
    "too few codebooks": (bad.codes(bad.good_codes()[:9]), "shape [9, 20], and [10, frames] with 1 to 2600"),
    "frames by codebooks": (bad.codes(bad.good_codes().T), "shape [20, 10]"),
    "one number": (bad.codes(7), "shape []"),
    "a batch of them": (bad.codes(bad.good_codes()[None]), "shape [1, 10, 20]"),
    "no frames": (bad.codes(bad.good_codes()[:, :0]), "shape [10, 0]"),
    "minutes of frames": (bad.codes(np.zeros((10, 2601), np.int32)), "shape [10, 2601]"),
    "negative codes": (bad.codes(bad.good_codes() - 1), "in codebook 0 go from -1 to 18; the codec has 0 to 4095"),
    "codes beyond the codebook": (bad.codes(bad.good_codes() + 1010), "in codebook 1 go from 1010 to 1029"),
    "huge codes": (bad.codes(np.full((10, 20), 2**64 - 1, np.uint64)), "go from 18446744073709551615"),
    "cut short": (bad.both(bad.codes(bad.good_codes()), bad.cut(-1)), "cut off: 799 of 800 bytes are there"),
    "cut in the header": (bad.both(bad.codes(bad.good_codes()), bad.cut(30)), "not a .npy file of codes"),
    "a header without data": (bad.npy_header((10, 2600)), "cut off: 0 of 208000 bytes"),
    "a header of 2 GB of data": (bad.npy_header((10, 27_000_000)), "1 to 2600 frames is needed"),
    "a negative header": (bad.npy_header((10, -5)), "shape [10, -5]"),
    "a header of 2 GB that is not there": (bad.long_npy_header(2**31, there=False), "not a .npy file of codes"),
    "a header of 2 GB that is there": (bad.long_npy_header(2**31, there=True), "not a .npy file of codes"),
    "several arrays": (bad.several_arrays, "not a .npy file of codes"),
    "nothing": (bad.content(b""), "not a .npy file of codes"),
    "a recording": (bad.recording(bad.tone(1)), "not a .npy file of codes"),
    "a folder": (Path.mkdir, "it is not a file"),
    "a device": (bad.link("/dev/zero"), "leads to '/dev/zero', outside of the batch's folder"),
    "a link out of the folder": (bad.link("/etc/passwd"), "leads to '/etc/passwd', outside of the batch's folder"),
    "a link to itself": (bad.link("x.npy"), "there is no such file"),
    "a link to nothing": (bad.link("nothing.npy"), "there is no such file"),
    "a pipe": (bad.fifo, "it is not a file"),
}

RECORDINGS: dict[str, tuple[bad.Make, str]] = {
    "nothing": (bad.content(b""), "it is empty"),
    "a text": (bad.content(b"This is no sound. " * 999), "cannot be read as audio"),
    "codes": (bad.codes(bad.good_codes()), "cannot be read as audio"),
    "cut in the header": (bad.both(bad.recording(bad.tone(1)), bad.cut(20)), "cannot be read as audio"),
    "no samples": (bad.recording([]), "0.00 s long, and 0.5 s is the least"),
    "one sample": (bad.recording([0.5]), "0.00 s long"),
    "too short": (bad.recording(bad.tone(0.4)), "0.40 s long"),
    "cut short": (bad.both(bad.recording(bad.tone(1)), bad.cut(9_000)), "the recording is 0.1"),
    "silent": (bad.recording(np.zeros(16_000)), "the recording is silent"),
    "not numbers": (bad.recording(np.full(16_000, np.nan)), "not numbers (NaN or infinity)"),
    "infinite": (bad.recording(np.where(np.arange(16_000) == 9, np.inf, 0.1)), "not numbers (NaN or infinity)"),
    "one sample a second": (bad.recording(bad.tone(1), 1), "1 samples a second, and 1000 to 768000 can be used"),
    "a billion samples a second": (bad.recording(bad.tone(1), 10**9), "1000000000 samples a second"),
    "nine channels": (bad.recording(np.stack([bad.tone(1)] * 9, axis=1)), "9 channels, and 8 is the most: mix it down"),
    "1024 channels": (bad.recording(np.stack([bad.tone(1)] * 1024, axis=1)), "has 1024 channels, and 8 is the most"),
    "silent in its first 30 s": (bad.recording(np.r_[np.zeros(30 * 1000), bad.tone(9, 1000)], 1000), "is silent"),
    "a folder": (Path.mkdir, "it is not a file"),
    "a device": (bad.link("/dev/zero"), "outside of the batch's folder"),
    "a link out of the folder": (bad.link("/etc/passwd"), "leads to '/etc/passwd', outside of the batch's folder"),
    "a pipe": (bad.fifo, "it is not a file"),
}

FOLDER: dict[str, tuple[str, bad.Make, str]] = {
    # a file of DIR/anna where a.wav and a.lab are, what becomes of it, the message
    "no transcript": ("a.lab", Path.unlink, "a.wav' has no transcript: neither a.lab nor a.txt is beside it"),
    "a blank transcript": ("a.lab", bad.content(b" \n"), "the transcript is blank"),
    "a transcript in latin-1": ("a.lab", bad.content(b"d\xe9j\xe0"), "the transcript is not UTF-8"),
    "a transcript of 10 MB": ("a.lab", bad.content(b"a" * 10 * MB), "the transcript has 10485760 bytes, and 524288 is"),
    "a transcript of 4 GB": ("a.lab", bad.hole(4096 * MB), "the transcript has 4294967296 bytes"),
    "a transcript that is a device": (
        "a.lab",
        bad.link("/dev/zero"),
        "leads to '/dev/zero', outside of",
    ),
    "a transcript from elsewhere": (
        "a.lab",
        bad.link("/etc/passwd"),
        "leads to '/etc/passwd', outside",
    ),
    "a transcript that is a pipe": ("a.lab", bad.fifo, "a.lab': it is not a file"),
    "a recording from elsewhere": (
        "a.wav",
        bad.link("/etc/passwd"),
        "leads to '/etc/passwd', outside",
    ),
    "a recording of nothing": ("a.wav", bad.content(b""), "it is empty"),
    "no recording": ("a.wav", Path.unlink, "the folder holds no recording"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "message"), CODES.values(), ids=CODES)
def test_codes_that_are_none(batch_folder: Path, refuse: Refuse, make: bad.Make, message: str) -> None:
    make(batch_folder / "x.npy")
    (batch_folder / "b.json").write_text(json.dumps({"tasks": [task(npy_file="x.npy")]}))
    refuse("b.json", message)
    assert not (batch_folder / "door").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "message"), RECORDINGS.values(), ids=RECORDINGS)
def test_recordings_that_are_none(batch_folder: Path, refuse: Refuse, make: bad.Make, message: str) -> None:
    make(batch_folder / "x.wav")
    batch = {"speakers": [{"id": 1, "reference": {"audio": "x.wav", "text": "Said."}, "texts": ["One."]}]}
    (batch_folder / "b.json").write_text(json.dumps(batch))
    refuse("b.json", message)


@pytest.mark.parametrize(("name", "make", "message"), FOLDER.values(), ids=FOLDER)
def test_a_folder_of_references_that_has_none(
    batch_folder: Path,
    command_line: CommandLine,
    idle_fleet: Settings,
    redis: Redis,
    name: str,
    make: bad.Make,
    message: str,
) -> None:
    save_recording(batch_folder / "voices/anna/a.wav", "I am Anna.")
    make(batch_folder / "voices/anna" / name)
    (batch_folder / "b.csv").write_text("speaker_id,text\nanna,One.\n")
    with nothing_done(batch_folder, redis):
        status, stderr = command_line("submit", "b.csv", "--references", "voices")
    assert (status, message in stderr) == (2, True), stderr


def test_references_elsewhere_are_taken_where_a_setting_names_their_folder(
    batch_folder: Path, command_line: CommandLine, idle_fleet: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch_folder / "refs").rename(batch_folder.parent / "archive")
    (batch_folder / "refs").symlink_to("../archive")
    with nothing_done(batch_folder, redis):
        status, stderr = command_line("submit", "b.json")
    assert status == 2
    assert f"leads to '{batch_folder.parent}/archive/0.npy', outside of the batch's folder" in stderr
    assert "copy it there, or set CLONER_REFERENCES_DIR to a folder that holds it" in stderr
    monkeypatch.setenv("CLONER_REFERENCES_DIR", str(batch_folder.parent / "archive"))
    assert Client().submit("b.json").id


@pytest.mark.parametrize(
    "make",
    [
        bad.recording(np.stack([bad.tone(1)] * 8, axis=1)),
        bad.recording(bad.tone(1, 8_000), 8_000, subtype="ULAW"),
        bad.three_hours,
    ],
    ids=["8 channels", "telephone", "3 hours"],
)
def test_a_recording_that_is_odd_is_taken_and_costs_little(batch_folder: Path, make: bad.Make) -> None:
    make(batch_folder / "x.wav")
    tracemalloc.start()
    assert measure_file(ReferenceKind.AUDIO, batch_folder / "x.wav").seconds
    data = load_reference(Reference(ReferenceKind.AUDIO, (batch_folder / "x.wav",), "Said."))
    assert tracemalloc.get_traced_memory()[1] < 64 * MB
    tracemalloc.stop()
    assert audio_from_bytes(data.data).size <= 30 * 44_100


def test_codes_in_another_order_and_width_are_taken(batch_folder: Path) -> None:
    bad.codes(np.asfortranarray(bad.good_codes().astype(">i8")))(batch_folder / "x.npy")
    assert measure_file(ReferenceKind.CODES, batch_folder / "x.npy").seconds
