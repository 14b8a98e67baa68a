"""Batch files of other programs, and of one speaker, that cannot be used: the input, and the error message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bad_inputs import Refuse

SPOKEN = ("--reference", "anna.wav", "--reference-text", "I am Anna.")

CUE = "1\n00:00:01,000 --> 00:00:02,000\nHello.\n"

RECORDED = {"audio_filepath": "anna.wav", "text": "I am Anna.", "duration": 1.0}

FILES: dict[str, tuple[str, str | bytes, tuple[str, ...], str]] = {
    # name of the file, what is in it, options, the message
    "a workbook": ("b.xlsx", b"PK\x03\x04", (), "a .xlsx is no batch file; save the sheet as CSV, with the columns"),
    "a document": (
        "b.docx",
        b"PK\x03\x04",
        (),
        "a .docx is no batch file; save it as plain text, .txt, with a sentence",
    ),
    "web subtitles": ("b.vtt", "WEBVTT\n", (), "a .vtt is no batch file; convert it with `ffmpeg -i b.vtt b.srt`"),
    "a recording": (
        "b.wav",
        b"RIFF",
        (),
        "give the texts to speak in a .txt, and name the recording with --reference b",
    ),
    "an archive": ("b.zip", b"PK\x03\x04", (), "a .zip is no batch file; unpack it"),
    "an unknown encoding": (
        "b.csv",
        "speaker_id,text\n",
        ("--encoding", "x"),
        "--encoding: 'x' is no encoding of texts",
    ),
    "an encoding of bytes": ("b.csv", "YQ==", ("--encoding", "base64"), "--encoding: 'base64' is no encoding of texts"),
    "another encoding": ("b.csv", b"\xe9", ("--encoding", "utf-8"), "this is not utf-8; name the encoding in which it"),
    "sentences of no one": (
        "b.txt",
        "Hello.\n",
        (),
        "a .txt names no speaker; name the recording of the one who speaks",
    ),
    "sentences of a missing recording": ("b.txt", "Hello.\n", ("--reference", "no.wav"), "there is no such file"),
    "sentences of a text": ("b.txt", "Hello.\n", ("--reference", "b.txt"), "it cannot be read as audio"),
    "sentences without a transcript": (
        "b.txt",
        "Hello.\n",
        ("--reference", "anna.wav"),
        "neither anna.lab nor anna.txt is beside it; write what is said in it into anna.lab, or give it with --ref",
    ),
    "sentences of their own transcript": (
        "anna.txt",
        "Hello.\n",
        SPOKEN[:2],
        "neither anna.lab nor anna.txt is beside",
    ),
    "sentences with a blank transcript": (
        "b.txt",
        "Hello.\n",
        ("--reference", "anna.wav", "--reference-text", " "),
        "--reference-text: it is blank; give what is said in it",
    ),
    "a bell in a sentence": ("b.txt", "One.\n\nTwo.\x07\n", SPOKEN, "line 3: it has an unusable character (U+0007)"),
    "a reference of a table": (
        "b.csv",
        "speaker_id,text\na,b\n",
        SPOKEN,
        "a csv names its speakers; name the references",
    ),
    "a transcript of a table": ("b.csv", "speaker_id,text\na,b\n", SPOKEN[2:], "--reference-text: a csv names its"),
    "subtitles without numbers": ("b.srt", CUE[2:], SPOKEN, "line 1: this is no cue: '00:00:01,000 --> 00:00:02,000'"),
    "subtitles of a player": ("b.srt", "WEBVTT\n\n" + CUE[2:], SPOKEN, "line 1: this is no cue: 'WEBVTT'"),
    "subtitles with a blank line": ("b.srt", f"{CUE}\nAnd more.\n", SPOKEN, "line 5: this is no cue: 'And more.'"),
    "two cues of one number": ("b.srt", f"{CUE}\n{CUE}", SPOKEN, "output_file 'anna/0001.wav' is also the output of"),
    "a list with a part too few": (
        "b.list",
        "anna.wav|anna|Hi.\n",
        (),
        "it has 3 parts with | between them; give record",
    ),
    "a list without its text": ("b.list", "anna.wav|anna|en|\n", (), "line 1: text is blank; give what is said"),
    "a list without its speaker": ("b.list", "anna.wav||en|Hi.\n", (), "line 1: speaker is blank; give a whole number"),
    "a list of a speaker above": ("b.list", "anna.wav|..|en|Hi.\n", (), "'../anna.wav' is not inside the output root"),
    "a list with a line twice": (
        "b.list",
        "anna.wav|anna|en|Hi.\n" * 2,
        (),
        "line 2: recording 'anna.wav' is also that of line 1; give it one line",
    ),
    "a list with two recordings of one name": (
        "b.list",
        "anna.wav|anna|en|Hi.\nx/anna.wav|anna|en|Hi.\n",
        (),
        "recording 'x/anna.wav' has the name and the speaker of 'anna.wav' at line 1; give one of them another name",
    ),
    "a list of recordings elsewhere": (
        "b.list",
        "/data/1.wav|anna|en|Hi.\n/data/2.wav|anna|en|Hi.\n/data/3.wav|anna|en|Hi.\n",
        (),
        "1 problem, nothing was queued:\n  line 1 (and 2 more speakers): '/data/1.wav' lies outside of the batch's",
    ),
    "metadata without its folder": (
        "metadata.csv",
        "LJ001-0001|Printing.|Printing.\nLJ001-0002|In being.|In being.\n",
        (),
        "the file: it is a list as LJSpeech has it, name|text, and no folder 'wavs' of recordings is beside it",
    ),
    "a table with | between its cells": (
        "b.csv",
        "speaker_id|text\n",
        (),
        "or write a table with the columns speaker_id",
    ),
    "metadata with a part too many": (
        "voices/metadata.csv",
        "LJ1|a|b|c\n",
        (),
        "it has 4 parts with | between them; gi",
    ),
    "a list of prompts without a text": (
        "meta.lst",
        "a|I am Anna.|anna.wav\n",
        (),
        "it has 3 parts with | between them",
    ),
    "a prompt with two transcripts": (
        "meta.lst",
        "a|I am Anna.|anna.wav|One.\nb|I am Ben.|anna.wav|Two.\n",
        (),
        "line 2: speaker 'batch/anna' has another transcript of its reference here than at line 1",
    ),
    "a prompt's name above": ("meta.lst", "../a|I am Anna.|anna.wav|One.\n", (), "'../a.wav' is not inside the output"),
    "a manifest without its text": ("b.json", json.dumps(RECORDED | {"text": ""}), (), "line 1: text is blank"),
    "a manifest with a line of another form": (
        "b.jsonl",
        f"{json.dumps(RECORDED)}\n{json.dumps({'text': 'Hi.'})}",
        (),
        "line 2: audio_filepath is missing; give the file of a recording",
    ),
    "a manifest of a folder that is not there": (
        "b.jsonl",
        "\n".join(json.dumps(RECORDED | {"audio_filepath": f"clips/{number}.wav"}) for number in range(3)),
        (),
        "1 problem, nothing was queued:\n  line 1 (and 2 more speakers): there is no folder",
    ),
    "a manifest of parts": (
        "b.jsonl",
        json.dumps(RECORDED | {"offset": 1.5}),
        (),
        "offset is 1.5, but a reference is a",
    ),
    "a manifest of a list": ("b.jsonl", json.dumps(RECORDED | {"speaker": []}), (), "line 1: speaker is a list"),
    "a manifest that was cut": ("b.jsonl", json.dumps(RECORDED)[:-1], (), "line 1, column 69: this is not JSON"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content", "options", "message"), FILES.values(), ids=FILES)
def test_a_file_of_another_program_that_is_no_batch(
    batch_folder: Path, refuse: Refuse, name: str, content: str | bytes, options: tuple[str, ...], message: str
) -> None:
    (batch_folder / "voices/wavs").mkdir(parents=True)
    (batch_folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse(name, message, *options)


def test_standard_input_needs_its_form(refuse: Refuse) -> None:
    refuse(
        "-", "standard-input: 1 problem, nothing was queued:\n  --as: the form of standard input is not known; name one"
    )
