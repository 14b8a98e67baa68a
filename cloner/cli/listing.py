"""`cloner list`: the batches of a fleet, or those of runs in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from cloner.errors import Damaged, UnknownBatch

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


def _of_fleet(most: int) -> Iterator[Row]:
    from cloner.client.client import Client
    from cloner.state.throughput import duration

    for handle in Client().batches(most):
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
    from cloner.protocol.messages import is_batch_id
    from cloner.protocol.results import BatchResult
    from cloner.state.throughput import duration

    root = out.resolve()
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
            print(f"{name}: its result.json cannot be read: {str(error).splitlines()[0]}", file=sys.stderr)
        else:
            state = "cancelled" if result.cancelled else "done"
            counts = f"{result.generated}/{result.total}", str(result.failed)
            yield name, result.source, state, *counts, duration(result.audio_s) if result.audio_s else "-"


def _source(batch: KeptBatch) -> str:
    """The name of the batch's file, if it is known."""
    try:
        return batch.head().source
    except (OSError, Damaged):
        return "-"
