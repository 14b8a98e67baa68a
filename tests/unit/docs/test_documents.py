"""The documents agree with the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import yaml

from cloner.batch import Generation
from cloner.input.batch_file import load_batch
from cloner.settings import Settings
from ops.scripts import layers
from tests.support.bad_files import tone

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ops/ARCHITECTURE.md",
    "ops/BATCHES.md",
    "ops/BENCHMARKS.md",
    "ops/CHECKS.md",
    "ops/GLOSSARY.md",
    "ops/OPERATING.md",
)


def lines_of(document: str) -> list[tuple[int, str]]:
    return list(enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), start=1))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    """Paths like `cloner/client/submit.py`, and `tests/unit/` with its slash."""
    path = re.compile(r"(?<![\w./-])(?:cloner|launcher|ops|tests)/[\w./-]*[\w/]")
    missing = [
        f"line {number}: {name}"
        for number, line in lines_of(document)
        for name in path.findall(line)
        if not (ROOT / name).exists()
    ]
    assert missing == []


def files_in_tables(document: str) -> Iterator[Path]:
    """The files in the first column of each table that is headed by "file in `cloner/engine/`"."""
    folder = None
    for _, line in lines_of(document):
        if heading := re.match(r"\| file in `([\w/]+)/` \|", line):
            folder = ROOT / heading[1]
        elif not line.startswith("|"):
            folder = None
        elif folder:
            yield from (folder / name for name in re.findall(r"`([\w/]+\.py)`", line))


def test_every_file_in_a_table_of_files_exists() -> None:
    files = [file for document in DOCUMENTS for file in files_in_tables(document)]
    assert files
    assert [file for file in files if not file.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_works(document: str) -> None:
    missing = [
        f"line {number}: {target}"
        for number, line in lines_of(document)
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", line)
        if not ((ROOT / document).parent / target).exists()
    ]
    assert missing == []


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_heading_works(document: str) -> None:
    missing = [
        f"line {number}: {file}#{anchor}"
        for number, line in lines_of(document)
        for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", line)
        if anchor not in headings((ROOT / document).parent / file if file else ROOT / document)
    ]
    assert missing == []


def test_the_first_batch_of_the_readme_is_one_and_its_defaults_are_the_defaults(tmp_path: Path) -> None:
    first, options = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    soundfile.write(tmp_path / "anna.wav", tone(12.0), 16_000)
    (tmp_path / "batch.yaml").write_text(first, encoding="utf-8")
    batch = load_batch(tmp_path / "batch.yaml", Settings())
    (speaker,) = batch.speakers
    assert [segment.text for segment in speaker.segments] == ["Good morning.", "How are you today?"]
    values = yaml.safe_load(options)["generation"]
    assert values == {name: Generation.model_fields[name].default for name in values}


def test_the_codes_of_failures_are_those_of_the_code() -> None:
    section = (ROOT / "ops/BATCHES.md").read_text(encoding="utf-8").partition("## Failures")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    documented = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    source = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "cloner").rglob("*.py")))
    assert {code for code in documented if f'"{code}"' not in source} == set()
    given = r'\b(?:code(?:: str)? ?= ?|(?:fail|SegmentFailure)\([^"()]*)"(\w+)"'
    raised = set(re.findall(given, source))
    assert {"crashed", "cut_off", "output"} <= raised
    assert raised <= documented


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for _, line in lines_of(document)
        for target in re.findall(r"`make ([\w-]+)`", line)
    }
    assert named - targets == set()


def test_the_layers_in_the_architecture_are_those_of_pyproject() -> None:
    document = layers.DOCUMENT.read_text(encoding="utf-8")
    assert document == layers.updated(document), "run `make docs`"
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    for contract in contracts:
        shown = contract["layers"] if contract["type"] == "layers" else [contract["name"]]
        assert all(line in document for line in shown)


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the markers"):
        layers.updated("# How it is built\n")
