"""A batch's result on standard output: a line of JSON, or a few lines for people."""

from __future__ import annotations

import posixpath
import sys
from itertools import islice
from pathlib import Path
from posixpath import commonpath
from shlex import quote
from typing import TYPE_CHECKING

import typer

from cloner.events import Event

if TYPE_CHECKING:
    from cloner.console import Screen
    from cloner.protocol.results import BatchResult, ReviewResult


SHOWN = 3
"""Most files that a line names."""


def log_end(result: BatchResult, screen: Screen) -> None:
    """Log the last lines about a batch."""
    from cloner.output.record import batch_directory

    screen.log(Event.BATCH_FINISHED.line(generated=result.generated, total=result.total))
    report = batch_directory(Path(result.out_dir), result.batch_id) / "report.html"
    if not screen.console.is_terminal:  # there, the summary says so
        suspects = len(result.suspects)
        screen.log(Event.REPORT_WRITTEN.line(batch=result.batch_id, suspects=suspects, report=report))
    if result.pruned:
        screen.log(Event.PRUNED.line(count=result.leftover_total))
    elif result.leftover:
        some = ", ".join(result.leftover[:SHOWN])
        screen.log(Event.LEFTOVER.line(count=result.leftover_total, some=some))


def print_result(result: BatchResult, *, as_json: bool = False, again: str = "", out: Path | None = None) -> None:
    """Print the result: JSON, or on a terminal, without `as_json`, a few lines for people. `again` names what
    generates again what failed, `out` the output folder of a batch that ran without a fleet. Ends the command with
    status 1 if a segment failed."""
    text = result.to_json() if as_json or not sys.stdout.isatty() else summary(result, again, out)
    # UTF-8 whatever the terminal's encoding: a batch must not fail at its end because one letter cannot be encoded.
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()
    if result.failed:
        raise typer.Exit(1)


def summary(result: BatchResult, again: str, out: Path | None = None) -> str:
    """What was generated, where it is, and what to do next; a line each."""
    from cloner.output.record import batch_directory
    from cloner.state.throughput import duration

    reused = f", {result.reused} of them by earlier runs" if result.reused else ""
    lines = [
        f"{result.generated} of {result.total} segments are generated{reused}: {duration(result.audio_s)} of audio, in"
        f" {duration(result.elapsed_s)}"
    ]
    if result.results:
        folder = commonpath(posixpath.dirname(output) for output in result.results.values())
        lines.append(f"Audio:   {posixpath.join(result.out_dir, folder)}")
    record = batch_directory(Path(result.out_dir), result.batch_id)
    lines.append(f"Report:  {record / 'report.html'}")
    some = islice(result.errors.values(), SHOWN)
    lines += [f"Failed:  {error.output}: {error.message}" for error in some]
    if result.failed > SHOWN:
        lines.append(f"         and {result.failed - SHOWN} more; the report has all")
    if result.suspects:
        count, where = len(result.suspects), f" --out {quote(str(out))}" if out else ""
        lines.append(
            f"Suspect: {count} may have gone wrong: mark those that did in the report, then `cloner redo"
            f" {result.batch_id} --marked FILE{where}`"
        )
    if line := _review_line(result.review):
        lines.append(f"Review:  {line}")
    silent = sum(error.code == "nothing_to_speak" for error in result.errors.values())
    if result.failed > silent and again:
        lines.append(f"Next:    {again} generates again what failed")
    if silent:
        lines.append("Next:    write what is to be spoken, or leave it out, where a text has no letter and no digit")
    return "\n".join(lines)


def _review_line(review: ReviewResult) -> str:
    """What the review has come to; empty if there was none."""
    if review.state == "none":
        return ""
    line = f"{review.state}, {review.reviewed} reviewed, {review.failed} of them fail"
    if review.words_not_compared:
        line += f", words not all compared in {review.words_not_compared}"
    if review.unknown_language:
        line += f" (in {review.unknown_language} the recogniser does not know the language)"
    if rate := review.error_rate:
        if rate.low == rate.high:
            line += f"; {rate.estimate:.1%} of all have gone wrong"
        else:
            line += f"; about {rate.estimate:.1%} of all have gone wrong ({rate.low:.1%} to {rate.high:.1%})"
    return line
