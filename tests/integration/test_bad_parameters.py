"""Batches whose parameters of generation and audio make no sense, and their error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bad_inputs import Refuse
from tests.support.batch_files import task

GENERATION: dict[str, tuple[object, str]] = {
    "a list": ([], "generation: it is a list; give an object"),
    "not a number": ({"temperature": float("nan")}, "temperature is nan"),
    "infinity": ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
    "a cold temperature": ({"temperature": 0}, "temperature is 0; it should be greater than 0"),
    "more than all": ({"top_p": 1.01}, "top_p is 1.01; it should be less than or equal to 1"),
    "no frames": ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    "too many frames": ({"max_new_tokens": 10**30}, "max_new_tokens is 1000000000000000000000000000000"),
    "a text": ({"top_p": "0.7"}, "top_p is '0.7'"),
    "a number of true": ({"seed": True}, "seed is true"),
    "a negative seed": ({"seed": -1}, "seed is -1"),
    "a minimum above the maximum": ({"min_new_tokens": 9, "max_new_tokens": 8}, "it should be at most max_new_tokens"),
    "an unknown word": ({"temperatur": 1}, 'did you mean "temperature"?'),
}

AUDIO: dict[str, tuple[object, list[str], str]] = {
    # what the batch has, the options of the command, the message
    "a list": ([], [], "audio: it is a list; give an object"),
    "a list, and options": ([], ["--trim"], "audio: it is a list; give an object"),
    "an unknown key": ({"formats": "mp3"}, [], 'did you mean "format"?'),
    "an unknown format": (
        {"format": "aac"},
        [],
        "audio: format is 'aac'; it should be 'wav', 'flac', 'ogg', 'opus' or",
    ),
    "a format that is a number": ({"format": 3}, [], "audio: format is 3; it should be"),
    "a rate in words": ({"rate": "24k"}, [], "audio: rate is '24k'; it should be a valid integer"),
    "a low rate": ({"rate": 4_000}, [], "audio: rate is 4000; it should be greater than or equal to 8000"),
    "a high rate": (None, ["--rate", "400000"], "audio: rate is 400000; it should be less than or equal to 192000"),
    "a rate that Opus has not": (
        {"format": "opus", "rate": 44_100},
        [],
        "audio: rate is 44100; it should be 8000, 12000, 16000, 24000 or 48000 for opus",
    ),
    "a rate that MP3 has not": (None, ["--format", "mp3", "--rate", "96000"], "32000, 44100 or 48000 for mp3"),
    "a format that has not the rate": (
        {"rate": 22_050},
        ["--format", "opus"],
        "rate is 22050; it should be 8000, 12000",
    ),
    "a loud one": ({"loudness": -4}, [], "audio: loudness is -4; it should be less than or equal to -5"),
    "a soft one": (None, ["--loudness", "-41"], "audio: loudness is -41.0; it should be greater than or equal to -40"),
    "no number": ({"loudness": float("nan")}, [], "audio: loudness is nan"),
    "infinity": (None, ["--loudness=-inf"], "audio: loudness is -inf"),
    "a trim in words": ({"trim": "both"}, [], "audio: trim is 'both'"),
}


@pytest.mark.parametrize(("generation", "message"), GENERATION.values(), ids=GENERATION)
def test_a_generation_that_makes_no_sense(batch_folder: Path, refuse: Refuse, generation: object, message: str) -> None:
    (batch_folder / "b.json").write_text(json.dumps({"tasks": [task()], "generation": generation}))
    refuse("b.json", message)


@pytest.mark.parametrize(("audio", "options", "message"), AUDIO.values(), ids=AUDIO)
def test_audio_that_makes_no_sense(
    batch_folder: Path, refuse: Refuse, audio: object, options: list[str], message: str
) -> None:
    (batch_folder / "b.json").write_text(json.dumps({"tasks": [task()]} | ({} if audio is None else {"audio": audio})))
    refuse("b.json", message, *options)


def test_an_output_whose_format_has_not_the_rate(batch_folder: Path, refuse: Refuse) -> None:
    (batch_folder / "b.json").write_text(json.dumps({"tasks": [task(), task(1, output_file="1.opus")]}))
    message = "output_file '1.opus' cannot have the rate 22050; let the rate be 8000, 12000, 16000, 24000 or 48000, or"
    refuse("b.json", message, "--rate", "22050")
