"""A batch's report: what came of it, for people, as one page that needs nothing else, not even a network.

Beside the outputs, as ``OUT/.cloner/BATCH_ID/report.html``, it leads to each of them and plays them; in Flower, which
sees no outputs, it says the rest. It never has the texts. Names are strangers' words: Jinja escapes them all, and the
page's own policy forbids scripts and whatever is not here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from cloner.protocol.content_key import NONE
from cloner.protocol.results import BatchResult, SegmentError, SegmentResult

HERE = Path(__file__).parent / "templates"

PLAYERS = 500
OUTPUTS = 100_000
SPEAKERS = 2_000
ERRORS = 1_000
"""The most audio players, links to outputs, speakers and failures that a page has: a browser must still open it."""

LONGEST = 5
MESSAGE = 400
"""Characters of a failure's message."""

CANCELLED = "cancelled"


@dataclass(frozen=True)
class OutputRow:
    """One audio file."""

    index: int
    output: str
    href: str
    audio_s: float
    reused: bool
    truncated: bool


@dataclass(frozen=True)
class SpeakerSection:
    """One speaker, with the outputs that the page leads to: none where it sees no outputs."""

    id: str
    texts: int
    generated: int
    failed: int
    cancelled: int
    audio_s: float
    outputs: tuple[OutputRow, ...]


@dataclass(frozen=True)
class ErrorGroup:
    """Segments that failed for one reason, by index, or as many of them as are shown."""

    code: str
    count: int
    shown: tuple[tuple[int, SegmentError], ...]


def page(result: BatchResult, fleet: str, lines: Mapping[int, SegmentResult]) -> Iterator[str]:
    """The page that lies beside the record, piece by piece; `lines` are the record's, by segment. Nothing is done
    before the first piece is asked for."""
    values = _values(result, fleet, _outputs(result, lines))
    yield from _templates().get_template("page.html").generate(values, css=css(), has_outputs=True)


def body(result: BatchResult, fleet: str) -> str:
    """The same without outputs, to be put into a page that has `css` and may have colours of its own."""
    return _templates().get_template("body.html").render(_values(result, fleet, {}), has_outputs=False)


def share(sizes: Iterable[int], most: int) -> int:
    """How many each may have, so that all have no more than `most`: who needs few leaves more to the others."""
    left = most
    needs = sorted(sizes)
    for place, need in enumerate(needs):
        each = left // (len(needs) - place)
        if need > each:
            return each
        left -= need
    return needs[-1] if needs else 0


def _values(result: BatchResult, fleet: str, outputs: Mapping[str, list[OutputRow]]) -> dict[str, Any]:
    cancelled = Counter(error.speaker for error in result.errors.values() if error.code == CANCELLED)
    listed = share(map(len, outputs.values()), OUTPUTS)
    every = [row for rows in outputs.values() for row in rows]
    spoken_s = result.audio_s - result.reused_audio_s
    return {
        "result": result,
        "fleet": fleet,
        "cancelled": cancelled.total(),
        "failed": result.failed - cancelled.total(),
        "speed": spoken_s / result.elapsed_s if spoken_s > 0 and result.elapsed_s > 0 else None,
        "ended_at": result.submitted_at + result.elapsed_s,
        "checkpoint": "" if result.fingerprint == NONE else result.fingerprint,
        "errors": list(_grouped(result.errors)),
        "speakers": [
            SpeakerSection(
                id=name,
                texts=speaker.texts,
                generated=speaker.generated,
                failed=speaker.failed - cancelled[name],
                cancelled=cancelled[name],
                audio_s=speaker.audio_s,
                outputs=tuple(outputs.get(name, [])[:listed]),
            )
            for name, speaker in list(result.speakers.items())[:SPEAKERS]
        ],
        "longest": sorted(every, key=lambda row: -row.audio_s)[:LONGEST],
        "truncated": [(index, result.results[index]) for index in result.truncated[:ERRORS]],
        "players": share((min(len(rows), listed) for rows in outputs.values()), PLAYERS),
        "message_length": MESSAGE,
    }


def _outputs(result: BatchResult, lines: Mapping[int, SegmentResult]) -> dict[str, list[OutputRow]]:
    """Speaker -> its audio files, by index."""
    rows = defaultdict(list)
    for index, output in result.results.items():
        if line := lines.get(index):
            # From OUT/.cloner/BATCH_ID/ to what is named relative to OUT.
            href = f"../../{quote(output)}"
            rows[line.speaker].append(OutputRow(index, output, href, line.audio_s, line.reused, line.truncated))
    return rows


def _grouped(errors: Mapping[int, SegmentError]) -> Iterator[ErrorGroup]:
    """Failures by their code, the most frequent first. What was never spoken because of a cancel is no failure."""
    groups: dict[str, list[tuple[int, SegmentError]]] = defaultdict(list)
    for index, error in errors.items():
        if error.code != CANCELLED:
            groups[error.code].append((index, error))
    shown = share(map(len, groups.values()), ERRORS)
    for code, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield ErrorGroup(code, len(group), tuple(group[:shown]))


@cache
def _templates() -> Environment:
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters.update(number=_number, duration=_duration, time=_time, percent=_percent)
    return templates


@cache
def css() -> str:
    """The report's style. Its colours are variables, for light and dark."""
    return (HERE / "report.css").read_text(encoding="utf-8")


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(part: float, whole: float) -> str:
    """A share as CSS and people write it."""
    return f"{100 * part / whole if whole else 0.0:.1f}".removesuffix(".0") + "%"
