"""Right batch files of every form, and awkward bytes and values, for tests that fuzz the reader."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.support.batch_files import as_csv, task

TASKS = [
    task(0),
    task(1, output_file=..., id="one", seed=4),
    task(2, speaker_id="anna", npy_file="refs/1.npy", target_text="Two\nlines"),
]
GROUPED = {
    "speakers": [
        {
            "id": "anna",
            "reference": {"audio": "anna.wav", "text": "Said."},
            "texts": ["One.", {"text": "Two.", "output": "two.wav", "id": 2, "seed": 3}],
        },
        {"id": 5, "reference": {"codes": "refs/0.npy", "text": "Said."}, "texts": ["Three."]},
        {"id": "ben", "texts": ["Four."], "pronounce": {"Four": "for"}, "numbers": "de"},
        {"id": 6, "reference": {"audio": "six.wav"}, "texts": ["At 5:30, on the 2nd of 1,000.5."]},
    ],
    "pronounce": {"One": "won", "Two\\": "too"},
    "numbers": "en",
    "generation": {"temperature": 0.7, "seed": 3, "max_new_tokens": 20},
    "audio": {"format": "opus", "rate": 24_000, "loudness": -16, "trim": True},
    "checkpoint_dir": "checkpoints/tiny",
}
RIGHT = {
    ".json": json.dumps({"tasks": TASKS, "generation": {"top_p": 0.5}, "audio": {"format": "mp3"}}),
    ".jsonl": "\n".join(map(json.dumps, TASKS)),
    ".csv": as_csv(TASKS),
    ".yaml": yaml.safe_dump(GROUPED, sort_keys=False),
    ".yml": json.dumps(GROUPED, indent=1),
    ".tsv": 'Speaker\tText\tColour\nanna\tGood morning.\tred\nben\t"Four\nlines"\t\nanna\tThree.\t\n',
    ".txt": "Good morning.\n\nHow are you?\r\nBye.",
    ".srt": "".join(f"{cue}\n00:00:0{cue},000 --> 00:00:0{cue},900 X1:2\n<i>One</i>\ntwo.\n\n" for cue in (1, 2, 5)),
    ".list": "anna.wav|anna|EN|Good morning.\nvoices\\ben\\a.wav|ben|EN|How are you?\nanna.wav|ben|JA|Bye.\n",
    ".lst": "a|I am Anna.|anna.wav|One.\nb|I am Anna.|anna.wav|Two.|gt/b.wav\nc|Ben.|voices/ben/a.wav|Three.\n",
    "metadata.csv": "one|Good morning.|Good morning.\ntwo|5 of them|five of them\none.wav|Bye.\n".replace(
        "one.", "three."
    ),
    ".ndjson": "\n".join(
        json.dumps({"audio_filepath": name, "text": "Said.", "duration": 1.5, "offset": 0.0, "speaker": speaker})
        for name, speaker in (("anna.wav", 4), ("anna.wav", "ben"), ("voices/ben/a.wav", None))
    ),
}
PIECES = [
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b'"',
        b"'",
        b",",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"- ",
        b"\\",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!binary ",
        b"!!python/name:os.system ",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"? ",
        b"|\n",
        b"~",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 400,
        b"0x1F",
        b"0o17",
        b"010",
        b"1_000",
        b"12:30:45",
        b"2026-01-01",
        b".inf",
    ),
    *(
        b"2026-01-01T00:00:00+99:99",
        b"true",
        b"null",
        b"yes",
        b"\\ud800",
        b"\\u0000",
        b"\xe2\x80\xa8",
        b"../",
        b"/etc/passwd",
    ),
    *(
        b"refs/0.npy",
        b"refs",
        b"anna.wav",
        b".cloner/a.wav",
        b"a" * 300,
        b"[" * 50,
        b"0",
        b"-1",
        b"speaker_id",
        b"tasks",
    ),
    *(
        b"|",
        b";",
        b"\t",
        b"sep=;\n",
        b"00:00:01,000 --> 00:00:02,000",
        b"wavs\\",
        b"\xe9t\xe9",
        b"\x82\xb1\x82\xf1",
        b'{"audio_filepath": "anna.wav", "text": "a"}',
    ),
]
KEYS = [
    *(*TASKS[0], "text", *GROUPED, "tasks", "id", "reference", "texts"),
    *("codes", "temperature", "seed", "output", "", "audio_filepath", "speaker", "offset", "pronounce"),
    *("format", "rate", "loudness", "trim"),
]


def mutations(right: bytes) -> st.SearchStrategy[bytes]:
    """`right` with a few places removed, doubled, or overwritten by awkward bytes."""
    place = st.integers(0, len(right))
    piece = st.one_of(st.sampled_from(PIECES), st.binary(max_size=6))

    def mutated(changes: list[tuple[int, int, bytes, bool]]) -> bytes:
        data = right
        for start, length, insert, double in changes:
            kept = data[start : start + length] if double else b""
            data = data[:start] + kept + insert + kept + data[start + length :]
        return data

    change = st.tuples(place, st.integers(0, 12), st.one_of(st.just(b""), piece), st.booleans())
    return st.lists(change, min_size=1, max_size=6).map(mutated)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([piece.decode("utf-8", "replace") for piece in PIECES]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), inner, max_size=6),
    ),
    max_leaves=25,
)
