"""The command `reproduce`: the kept take of a segment, spoken again."""

from __future__ import annotations

from os.path import lexists, realpath
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from cloner.cli.again import checked_id
from cloner.cli.options import output_root, segment_of
from cloner.errors import NotReproduced, UsageError, one_line, printable
from cloner.events import Event
from cloner.logs import log_event
from cloner.settings import load_settings
from cloner.validation import shown


def reproduce(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The id that `cloner list` shows.")],
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment's number, or its file.")],
    out: Annotated[Path | None, typer.Option(help="Output root; CLONER_OUT_DIR if not given.")] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what is spoken there, in the segment's format.")
    ] = None,
) -> None:
    """Speak the kept take of a segment again on this box, and say whether it is the same, else what differs."""
    from cloner.cli.reproduction import reproduce as speak_again
    from cloner.output.atomic_file import FileAt, write_new
    from cloner.output.kept_take import find_kept_take

    settings = load_settings()
    root = output_root(out or settings.out_dir)
    take = find_kept_take(root, checked_id(batch_id), segment_of(segment))
    if to is not None:
        _check_new_file(to, root, Path(take.line.output).suffix)
    index, text, output, _ = take.row
    log_event(Event.SEGMENT_NAMED, segment=index, output=one_line(output), speaker=take.speaker.id, text=shown(text))
    result = speak_again(take, settings.model_copy(update={"out_dir": root}))
    if to is not None:
        try:
            part = FileAt(to.with_name(f"{to.name}-{uuid4().hex}.part"))
            write_new([result.data], part, FileAt(to), may_replace=lambda: False)
        except OSError as error:
            raise UsageError(f"--to {printable(to)} cannot be written ({error.strerror}): name another file") from error
    if not result.is_same:
        raise NotReproduced(f"{take} is not reproduced: {result.compared}; {result.explanation}")
    print(f"{take} is reproduced: {result.compared}")


def _check_new_file(to: Path, root: Path, suffix: str) -> None:
    """Raise `UsageError` unless `to` may be written: it is no file yet, not under the output root, and ends so."""
    if to.suffix.lower() != suffix.lower():
        raise UsageError(f"--to {printable(to)}: the segment's audio is a {suffix} file; name it so")
    if Path(realpath(to.parent), to.name).is_relative_to(root):
        raise UsageError(f"--to {printable(to)} is under the output root {root}: name a file outside of it")
    if lexists(to):
        raise UsageError(f"--to {printable(to)} is there already: name a new file")
