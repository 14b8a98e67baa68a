"""The batch reader on arbitrary files: it returns a batch that can be sent, or raises `BadBatch`; nothing else.

``FUZZ_EXAMPLES=20000 pytest tests/unit/input/test_batch_file_fuzz.py`` searches for longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloner.batch import Batch
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from cloner.input.rows import ReadOptions
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from tests.support.batch_files import save_recording, write_references
from tests.support.fuzzed_files import LEAVES, PIECES, RIGHT, TASKS, VALUES, mutations

pytestmark = pytest.mark.slow

ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml", ".txt", ".srt", ".list", ".lst", ".xlsx")

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")),
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=30),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
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
            "audio": st.one_of(
                st.dictionaries(st.sampled_from(["format", "rate", "loudness", "trim"]), LEAVES), VALUES
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
    for name in ("one", "two", "three"):
        save_recording(folder / f"wavs/{name}.wav")
    save_recording(folder / "six.wav", "I am the sixth.")

    def read(ending: str, data: bytes) -> None:
        path = folder / f"b{ending}"
        path.write_bytes(data)
        for out_root, references in ((None, None), (folder / "out", folder / "voices")):
            try:
                options = spoken_by(folder / "anna.wav", ending)
                batch = read_batch(path, out_root=out_root, references=references, options=options)
            except BadBatch as error:
                check_problems(error)
            else:
                check_that_it_can_be_sent(batch)

    return read


def spoken_by(reference: Path, ending: str) -> ReadOptions | None:
    """The options without which a file of this ending has no speaker."""
    return ReadOptions(reference=reference, reference_text="Said.") if ending in {".txt", ".srt"} else None


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
        batch_id="b",
        source="b",
        submitted_at=0.0,
        generation=batch.generation,
        audio=batch.audio,
        speakers=speakers,
        chunks=[],
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
@given(rows=st.lists(st.dictionaries(st.sampled_from(["audio_filepath", "text", "speaker", "offset"]), LEAVES)))
def test_any_values_as_a_manifest(read: Read, rows: list[object]) -> None:
    lines = [{"audio_filepath": "anna.wav", "text": "Said."}, *rows]
    read(".jsonl", "\n".join(map(json.dumps, lines)).encode())


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
    for name in ("anna", "ben"):
        save_recording(folder / f"voices/{name}/a.wav", "Said.")
    for name in ("one", "two", "three"):
        save_recording(folder / f"wavs/{name}.wav")
    save_recording(folder / "six.wav", "I am the sixth.")
    for ending, content in RIGHT.items():
        (folder / f"b{ending}").write_text(content)
        options = spoken_by(folder / "anna.wav", ending)
        batch = read_batch(folder / f"b{ending}", out_root=None, references=folder / "voices", options=options)
        assert batch.total >= 3
