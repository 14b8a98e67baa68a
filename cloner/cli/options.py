"""Arguments and options that several commands have."""

from __future__ import annotations

from dataclasses import replace
from os.path import realpath
from pathlib import Path
from typing import Annotated

import typer

from cloner.batch import AudioFormat, Batch
from cloner.client.assignment import Strategy
from cloner.errors import UsageError
from cloner.input.fields import right_language
from cloner.input.review import parse_review
from cloner.input.rows import Form
from cloner.validation import canonical_language, shown

BatchFile = Annotated[
    Path,
    typer.Argument(
        help="Batch file: .json, .yaml, .jsonl, .csv, .tsv, .txt, .srt, .list or .lst; - for standard input.",
        show_default=False,
    ),
]
AsForm = Annotated[Form | None, typer.Option("--as", help="The batch file's form; that of its ending if not given.")]
Encoding = Annotated[
    str | None, typer.Option(help="The batch file's encoding, such as cp1252; if not given, UTF-8 or a guess.")
]
Reference = Annotated[
    Path | None, typer.Option(help="Recording of the one speaker of a .txt or .srt, who is named after it.")
]
ReferenceText = Annotated[
    str | None, typer.Option(help="What is said in it; if not given, as in the .lab or .txt beside it.")
]
Language = Annotated[
    str | None,
    typer.Option(help="Language of the texts for which the file names none, such as en or pt-BR.", metavar="CODE"),
]
Format = Annotated[
    AudioFormat | None,
    typer.Option("--format", help="Format of outputs that the batch does not name; WAV if not given."),
]
Rate = Annotated[
    int | None, typer.Option("--rate", help="Sample rate of the outputs; that of the model if not given.", metavar="HZ")
]
Loudness = Annotated[
    float | None,
    typer.Option(
        "--loudness", help="Loudness of the outputs, such as -16; left as it is if not given.", metavar="LUFS"
    ),
]
Trim = Annotated[bool, typer.Option("--trim", help="Remove the silence at both ends of the outputs.")]
References = Annotated[
    Path | None,
    typer.Option(help="Folder of references, DIR/<speaker_id>/*.wav with a .lab or .txt of the same stem."),
]
Prefix = Annotated[
    str | None,
    typer.Option(help="Folder under the fleet's output root; the batch file's name without its ending if not given."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that no version of this batch has written.")
]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Remove files of earlier versions of this batch, once all of it is generated."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse the batch if a text cannot be spoken, or a reference is doubtful.")
]
ReviewOption = Annotated[
    str | None,
    typer.Option(
        "--review",
        help="Which takes reviewers hear: none, suspects, all, or a part of the batch, such as 0.05; suspects if not"
        " given and a reviewer is there.",
        metavar="WHICH",
    ),
]
Reviewers = Annotated[int, typer.Option(min=0, max=64, metavar="N", help="Reviewers of a run, which hear takes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on a terminal, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no log lines and no progress.")]
StrategyOption = Annotated[Strategy, typer.Option(help="How speakers are assigned to workers.")]

OR_OUT = ", or --out DIR for batches that were run on this box"
"""What would do without a fleet, where a command has `--out`."""


def audio_options(
    audio_format: AudioFormat | None, rate: int | None, loudness: float | None, trim: bool
) -> dict[str, object]:
    """The options about audio that are given, as `ReadOptions.audio`."""
    values = {"format": audio_format, "rate": rate, "loudness": loudness, "trim": trim or None}
    return {name: value for name, value in values.items() if value is not None}


def language_of(code: str | None) -> str | None:
    """The `Language` option as batches have it, if it is given. Raises `UsageError`."""
    if code is None:
        return None
    if (language := canonical_language(code)) is None:
        raise UsageError(f"--language {shown(code)} is no code of a language: {right_language(code)}")
    return language


def with_review(batch: Batch, which: str | None) -> Batch:
    """The batch with the `ReviewOption`, if it is given. Raises `UsageError`."""
    return batch if which is None else replace(batch, review=parse_review(which))


def segment_of(text: str) -> int | str:
    """The number of a segment that a command names, or its output. Raises `UsageError`."""
    if not (text.isascii() and text.isdigit()):
        return text
    if len(text) > 19 or int(text) >= 2**63:
        raise UsageError(f"{shown(text)} is no segment's number: they count from 0, in the batch's order")
    return int(text)


def output_root(folder: Path) -> Path:
    """`folder`, all links followed; it need not exist yet. Raises `UsageError` if it cannot be a folder."""
    root = Path(realpath(folder))
    for nearest in (root, *root.parents):
        try:
            nearest.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"--out {root} cannot be used ({error.strerror}): name another folder") from error
        if nearest.is_dir():
            break
        raise UsageError(f"--out {root} is not a folder: name one, there or to be made")
    return root
