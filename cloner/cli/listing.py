"""`cloner list` and `cloner report`: the batches of a fleet, or those of runs in a folder, and their reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from cloner.cli.fleet import connect_client
from cloner.cli.options import OR_OUT, output_root
from cloner.errors import ClonerError, Damaged, UnknownBatch, one_line
from cloner.settings import load_settings
from cloner.validation import first_error, shown

if TYPE_CHECKING:
    from cloner.output.kept_batch import KeptBatch

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

    for handle in connect_client(OR_OUT).batches(most):
        try:
            progress, source = handle.progress(), handle.source()
        except UnknownBatch:
            continue  # it has expired meanwhile
        except Damaged as error:
            print(f"{handle.id}: {error.message}", file=sys.stderr)
            continue
        state = "cancelled" if progress.cancelled and progress.closed else str(progress.state)
        counts = f"{progress.generated}/{progress.total}", str(progress.failed)
        yield handle.id, source, state, *counts, duration(progress.audio_s) if progress.audio_s else "-"


def _of_folder(out: Path, most: int) -> Iterator[Row]:
    """The batches whose records lie under that output root; a batch without a result was stopped."""
    from cloner.output.kept_batch import BATCH, KeptBatch
    from cloner.output.own_folder import OwnFolder
    from cloner.output.record import Record, record_files
    from cloner.protocol.fields import is_batch_id
    from cloner.protocol.results import BatchResult
    from cloner.state.throughput import duration

    root = output_root(out)
    folders = [folder for folder in OwnFolder(root).inner_folders() if record_files(folder) or folder.files(BATCH)]
    names = sorted((folder.path.name for folder in folders if is_batch_id(folder.path.name)), reverse=True)
    for name in names[:most]:
        try:
            result = BatchResult.model_validate_json(OwnFolder(root, name).read("result.json"))
        except FileNotFoundError:
            record = Record(root, name, with_keys=False)
            record.refresh()
            generated = sum(line.generated for line in record.results.values())
            yield name, _source(KeptBatch(record.folder)), "stopped", str(generated), "-", "-"
        except (OSError, ValidationError) as error:
            reason = first_error(error) if isinstance(error, ValidationError) else str(error)
            print(f"{name}: its result.json cannot be read: {one_line(reason)}", file=sys.stderr)
        else:
            state = "cancelled" if result.cancelled else "done"
            counts = f"{result.generated}/{result.total}", str(result.failed)
            yield (
                name,
                _source(KeptBatch(OwnFolder(root, name)), result.source),
                state,
                *counts,
                duration(result.audio_s) if result.audio_s else "-",
            )


def _source(batch: KeptBatch, otherwise: str = "-") -> str:
    """The name of the batch's file, and whether it is a redo or another part of that; `otherwise` if that is not
    known."""
    try:
        return batch.head().title
    except (OSError, Damaged):
        return otherwise
