"""The batch reader on arbitrary files: it returns a batch that can be sent, or raises `BadBatch`; nothing else.

``FUZZ_EXAMPLES=20000 pytest tests/unit/input/test_batch_file_fuzz.py`` searches for longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloner.batch import Batch
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from tests.support.batch_files import as_csv, save_recording, task, write_references

pytestmark = pytest.mark.slow

ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".yaml", ".yml", ".txt")

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")),
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=30),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

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
        {"id": "ben", "texts": ["Four."]},
    ],
    "generation": {"temperature": 0.7, "seed": 3, "max_new_tokens": 20},
    "checkpoint_dir": "checkpoints/tiny",
}
RIGHT = {
    ".json": json.dumps({"tasks": TASKS, "generation": {"top_p": 0.5}}),
    ".jsonl": "\n".join(map(json.dumps, TASKS)),
    ".csv": as_csv(TASKS),
    ".yaml": yaml.safe_dump(GROUPED, sort_keys=False),
    ".yml": json.dumps(GROUPED, indent=1),
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
]
KEYS = [
    *(*TASKS[0], "text", *GROUPED, "tasks", "id", "reference", "texts"),
    *("audio", "codes", "temperature", "seed", "output", ""),
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
TASK = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(st.just(value), LEAVES) for key, value in (TASKS[0] | {"text": "Hi.", "colour": "red"}).items()
    },
)
GROUP = st.fixed_dictionaries(
    {"id": st.one_of(st.sampled_from(["anna", 5]), LEAVES)},
    optional={
        "texts": st.one_of(st.lists(st.one_of(st.just("One."), LEAVES), max_size=4), LEAVES),
        "reference": st.one_of(
            st.just({"codes": "refs/0.npy", "text": "Said."}),
            st.dictionaries(st.sampled_from(["audio", "codes", "text", "x"]), LEAVES, max_size=4),
            LEAVES,
        ),
    },
)
DOCUMENTS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "tasks": st.one_of(st.lists(TASK, max_size=5), VALUES),
            "speakers": st.one_of(st.lists(GROUP, max_size=5), VALUES),
            "generation": st.one_of(
                st.dictionaries(st.sampled_from(["temperature", "top_p", "max_new_tokens", "min_new_tokens"]), LEAVES),
                VALUES,
            ),
            "checkpoint_dir": LEAVES,
        },
    ),
)

Read = Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Read a file of these bytes twice: as for a fleet, and as for a run with an output root and references."""
    folder = write_references(tmp_path_factory.mktemp("fuzz"))
    save_recording(folder / "voices/anna/a.wav", "I am Anna.")
    save_recording(folder / "voices/ben/a.wav", "I am Ben.")

    def read(ending: str, data: bytes) -> None:
        path = folder / f"b{ending}"
        path.write_bytes(data)
        for out_root, references in ((None, None), (folder / "out", folder / "voices")):
            try:
                batch = read_batch(path, out_root=out_root, references=references)
            except BadBatch as error:
                check_problems(error)
            else:
                check_that_it_can_be_sent(batch)

    return read


def check_problems(error: BadBatch) -> None:
    assert error.problems
    assert all(problem.where and problem.what and problem.right for problem in error.problems)
    assert error.message.encode()


def check_that_it_can_be_sent(batch: Batch) -> None:
    """A batch that the reader accepts fits into a manifest."""
    speakers = [
        SpeakerRow(
            id=speaker.id,
            reference=ReferenceRow(kind=speaker.reference.kind, digest="0" * 64, text=speaker.reference.text),
            segments=[(segment.index, segment.text, segment.output, 0) for segment in speaker.segments],
        )
        for speaker in batch.speakers
    ]
    assert batch.total > 0
    manifest = Manifest(
        batch_id="b", source="b", submitted_at=0.0, generation=batch.generation, speakers=speakers, chunks=[]
    )
    assert Manifest.unpack(manifest.pack()) == manifest


@fuzz
@given(ending=st.sampled_from(ENDINGS), data=st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode)))
def test_any_bytes(read: Read, ending: str, data: bytes) -> None:
    read(ending, data)


@fuzz
@given(ending=st.sampled_from(ENDINGS), pieces=st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_sequence_of_awkward_pieces(read: Read, ending: str, pieces: list[bytes]) -> None:
    read(ending, b"".join(pieces))


@pytest.mark.parametrize("ending", RIGHT)
def test_a_valid_file_with_mutations(read: Read, ending: str) -> None:
    @fuzz
    @given(data=mutations(RIGHT[ending].encode()))
    def search(data: bytes) -> None:
        read(ending, data)

    search()


@fuzz
@given(document=DOCUMENTS)
def test_any_values_as_json(read: Read, document: object) -> None:
    read(".json", json.dumps(document).encode())


@fuzz
@given(document=DOCUMENTS, flow=st.booleans())
def test_any_values_as_yaml(read: Read, document: object, flow: bool) -> None:
    read(".yaml", yaml.safe_dump(document, allow_unicode=True, default_flow_style=flow).encode("utf-8", "replace"))


@fuzz
@given(rows=st.lists(st.one_of(TASK, VALUES), max_size=6))
def test_any_values_as_json_lines(read: Read, rows: list[object]) -> None:
    read(".jsonl", "\n".join(map(json.dumps, rows)).encode())


@fuzz
@given(
    header=st.lists(st.one_of(st.sampled_from(list(TASKS[0])), st.text(max_size=8)), max_size=7),
    rows=st.lists(st.lists(st.one_of(st.sampled_from(["0", "anna", "refs/0.npy", "a.wav"]), st.text(max_size=9)))),
)
def test_any_cells_as_csv(read: Read, header: list[str], rows: list[list[str]]) -> None:
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in (header, *rows)]
    read(".csv", "\n".join(lines).encode("utf-8", "replace"))


def test_the_files_that_are_mutated_are_valid(read: Read, tmp_path: Path) -> None:
    folder = write_references(tmp_path)
    save_recording(folder / "voices/ben/a.wav", "I am Ben.")
    for ending, content in RIGHT.items():
        (folder / f"b{ending}").write_text(content)
        assert read_batch(folder / f"b{ending}", out_root=None, references=folder / "voices").total >= 3
