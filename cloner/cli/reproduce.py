"""The command `reproduce`: the kept take of a segment, spoken again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloner.cli.again import checked_id
from cloner.cli.options import output_root
from cloner.errors import NotReproduced, UsageError, printable
from cloner.settings import load_settings


def reproduce(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The id that `cloner list` shows.")],
    segment: Annotated[int, typer.Argument(min=0, max=2**63 - 1, metavar="SEGMENT", help="The segment's number.")],
    out: Annotated[Path | None, typer.Option(help="Output root; CLONER_OUT_DIR if not given.")] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what is spoken there, in the segment's format.")
    ] = None,
) -> None:
    """Speak the kept take of a segment again on this box, and say whether it is the same, else what differs."""
    from cloner.cli.reproduction import reproduce as speak_again
    from cloner.output.atomic_file import FileAt, write_and_rename
    from cloner.output.kept_take import find_kept_take

    settings = load_settings()
    root = output_root(out or settings.out_dir)
    take = find_kept_take(root, checked_id(batch_id), segment)
    suffix = Path(take.line.output).suffix
    if to is not None and to.suffix.lower() != suffix.lower():
        raise UsageError(f"--to {printable(to)}: the segment's audio is a {suffix} file; name it so")
    result = speak_again(take, settings.model_copy(update={"out_dir": root}))
    if to is not None:
        try:
            write_and_rename([result.data], FileAt(to.with_name(f"{to.name}.part")), FileAt(to))
        except OSError as error:
            raise UsageError(f"--to {printable(to)} cannot be written ({error.strerror}): name another file") from error
    if not result.is_same:
        raise NotReproduced(f"{take} is not reproduced: {result.compared}; {result.explanation}")
    print(f"{take} is reproduced: {result.compared}")
