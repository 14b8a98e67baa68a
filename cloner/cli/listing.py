"""`cloner list` and `cloner report`: the batches of a fleet, or those of runs in a folder, and their reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ValidationError

from cloner.cli.fleet import connect_client
from cloner.cli.options import OR_OUT, output_root
from cloner.errors import ClonerError, Damaged, UnknownBatch, one_line
from cloner.settings import load_settings
from cloner.validation import first_error, shown

if TYPE_CHECKING:
    from cloner.output.kept_batch import KeptBatch
    from cloner.output.own_folder import OwnFolder

COLUMNS = ("Batch", "File", "State", "Generated", "Failed", "Audio")

Row = tuple[str, ...]


def list_batches(
    out: Annotated[Path | None, typer.Option(help="List what was run in this folder, and ask no fleet.")] = None,
    most: Annotated[int, typer.Option(min=1, help="At most so many.", metavar="N")] = 20,
) -> None:
    """List batches, the newest first."""
    from cloner.console import print_rows

    rows = list(_of_fleet(most) if out is None else _of_folder(out, most))
    if not rows:
        print("there are no batches" if out is None else f"there are no batches in {out}", file=sys.stderr)
        return
    print_rows(COLUMNS, rows, len(COLUMNS))


def report(
    batch_id: Annotated[str, typer.Argument(help="The id that `cloner list` shows.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Output root; CLONER_OUT_DIR if not given.")] = None,
) -> None:
    """Write the report of a finished batch again, from its result and record under the output root; print its path."""
    from cloner.output.audio_files import OutputRoot
    from cloner.output.own_folder import OwnFolder
    from cloner.output.record import Record, read_result
    from cloner.output.verify import choose_by_files
    from cloner.protocol.fields import is_batch_id
    from cloner.report.report_file import REPORT, report_file

    settings = load_settings()
    root = output_root(out or settings.out_dir)
    unknown = f"no finished batch {shown(batch_id)} lies under {root}: `cloner list --out {root}` lists those that do"
    if not is_batch_id(batch_id):
        raise UnknownBatch(unknown)
    folder = OwnFolder(root, batch_id)
    try:
        result = read_result(folder)
    except FileNotFoundError:
        raise UnknownBatch(unknown) from None
    record = Record(root, batch_id, with_keys=False)
    record.refresh()
    choose_by_files(record, OutputRoot(root))
    path = folder.path / REPORT
    try:
        pieces = report_file(root, result, settings.fleet, record.results)
        folder.write(path.name, (piece.encode() for piece in pieces))
    except OSError as error:
        raise ClonerError(f"{path} cannot be written ({error.strerror})") from error
    print(path)


def _of_fleet(most: int) -> Iterator[Row]:
    from cloner.state.throughput import duration

    client = connect_client(OR_OUT)
    batches = client.batches(most)
    for handle, progress in zip(batches, client.progress(batches), strict=True):
        if isinstance(progress, UnknownBatch):
            continue  # it has expired meanwhile
        if isinstance(progress, Damaged):
            print(f"{handle.id}: {progress.message}", file=sys.stderr)
            continue
        counts = f"{progress.generated}/{progress.total}", str(progress.failed)
        yield (
            handle.id,
            progress.source,
            progress.status,
            *counts,
            duration(progress.audio_s) if progress.audio_s else "-",
        )


class _Counts(BaseModel):
    """What a result is listed with: the rest of it has an entry for each segment."""

    source: str = ""
    total: int
    generated: int
    failed: int
    cancelled: bool
    audio_s: float


def _of_folder(out: Path, most: int) -> Iterator[Row]:
    """The batches whose records lie under that output root; a batch without a result was stopped."""
    from cloner.output.kept_batch import KeptBatch
    from cloner.output.record import RESULT
    from cloner.state.throughput import duration

    for folder in islice(_kept_folders(output_root(out)), most):
        name = folder.path.name
        try:
            result = _Counts.model_validate_json(folder.read(RESULT))
        except FileNotFoundError:
            yield name, _source(KeptBatch(folder)), "stopped", str(_generated(folder)), "-", "-"
        except (OSError, ValidationError) as error:
            reason = first_error(error) if isinstance(error, ValidationError) else str(error)
            print(f"{name}: its {RESULT} cannot be read: {one_line(reason)}", file=sys.stderr)
        else:
            state = "cancelled" if result.cancelled else "done"
            counts = f"{result.generated}/{result.total}", str(result.failed)
            yield (
                name,
                _source(KeptBatch(folder), result.source),
                state,
                *counts,
                duration(result.audio_s) if result.audio_s else "-",
            )


def _kept_folders(root: Path) -> Iterator[OwnFolder]:
    """The folders of the batches under an output root, the newest first; there may be thousands."""
    from cloner.output.kept_batch import BATCH
    from cloner.output.own_folder import OwnFolder
    from cloner.output.record import record_files
    from cloner.protocol.fields import is_batch_id

    for folder in reversed(OwnFolder(root).inner_folders()):  # their ids sort by time
        if is_batch_id(folder.path.name) and (folder.files(BATCH) or record_files(folder)):
            yield folder


def _generated(folder: OwnFolder) -> int:
    """How many segments of a batch are generated, by its record. Raises `RecordFailed`."""
    from cloner.output.record import record_files, translate_disk_errors
    from cloner.output.record_lines import read_lines

    with translate_disk_errors(folder.path):
        return len({output for name in record_files(folder) for output, _, _ in read_lines(folder, name)})


def _source(batch: KeptBatch, otherwise: str = "-") -> str:
    """The name of the batch's file, and whether it is a redo or another part of that; `otherwise` if that is not
    known."""
    try:
        return batch.head().title
    except (OSError, Damaged):
        return otherwise
