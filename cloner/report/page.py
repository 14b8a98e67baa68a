"""A batch's report for people: one HTML page that loads nothing else and needs no network.

The page ``OUT/.cloner/BATCH_ID/report.html`` links to the outputs and plays them. Flower, which has no access to the
outputs, shows the same report without them. A report never contains the texts. Names come from untrusted input: Jinja
escapes them all, and the page's content security policy forbids scripts and external resources.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from heapq import nsmallest
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from cloner.protocol.content_key import NO_CHECKPOINT
from cloner.protocol.results import BatchResult, SegmentError, SegmentResult

TEMPLATES = Path(__file__).parent / "templates"

MAX_PLAYERS = 500
MAX_LINKS = 100_000
MAX_SPEAKERS = 2_000
MAX_ERRORS = 1_000
"""The most audio players, links to outputs, speakers and failures on a page: a browser must be able to open it."""

LONGEST = 5
"""The number of longest segments that are listed."""

MAX_MESSAGE = 400
"""Characters of a failure's message that are shown."""

CANCELLED = "cancelled"


@dataclass(frozen=True)
class OutputRow:
    """One audio file."""

    index: int
    output: str
    href: str
    audio_s: float
    reused: bool


@dataclass(frozen=True)
class SpeakerSection:
    """One speaker, with the outputs that the page links to: none in Flower."""

    id: str
    texts: int
    generated: int
    failed: int
    cancelled: int
    audio_s: float
    outputs: tuple[OutputRow, ...]


@dataclass(frozen=True)
class ErrorGroup:
    """Segments that failed with one code: their number, and those that are shown, by index."""

    code: str
    count: int
    shown: tuple[tuple[int, SegmentError], ...]


def page(result: BatchResult, fleet: str, lines: Mapping[int, SegmentResult]) -> Iterator[str]:
    """Yield the page that is stored beside the record, in pieces; `lines` are the record's lines, by segment."""
    values = _values(result, fleet, lines)
    yield from _templates().get_template("page.html").generate(values, css=css(), has_outputs=True)


def body(result: BatchResult, fleet: str) -> str:
    """Return the report without outputs, as a fragment for a page that includes `css` and may override its colours."""
    return _templates().get_template("body.html").render(_values(result, fleet, {}), has_outputs=False)


def fair_limit(sizes: Iterable[int], total: int) -> int:
    """Return the largest limit for each size with which the limited sizes sum up to at most `total`."""
    left = total
    ascending = sorted(sizes)
    for position, size in enumerate(ascending):
        limit = left // (len(ascending) - position)
        if size > limit:
            return limit
        left -= size
    return ascending[-1] if ascending else 0


def _values(result: BatchResult, fleet: str, lines: Mapping[int, SegmentResult]) -> dict[str, Any]:
    cancelled = Counter(error.speaker for error in result.errors.values() if error.code == CANCELLED)
    outputs = _outputs(result, lines)
    listed = fair_limit(map(len, outputs.values()), MAX_LINKS)
    longest = nsmallest(LONGEST, chain(*outputs.values()), key=lambda index: (-lines[index].audio_s, index))
    generated_s = result.audio_s - result.reused_audio_s
    return {
        "result": result,
        "fleet": fleet,
        "cancelled": cancelled.total(),
        "failed": result.failed - cancelled.total(),
        "speed": generated_s / result.elapsed_s if generated_s > 0 and result.elapsed_s > 0 else None,
        "ended_at": result.submitted_at + result.elapsed_s,
        "checkpoint": "" if result.fingerprint == NO_CHECKPOINT else result.fingerprint,
        "errors": list(_grouped(result.errors)),
        "speakers": [
            SpeakerSection(
                id=name,
                texts=speaker.texts,
                generated=speaker.generated,
                failed=speaker.failed - cancelled[name],
                cancelled=cancelled[name],
                audio_s=speaker.audio_s,
                outputs=tuple(_row(result, lines[index]) for index in outputs.get(name, [])[:listed]),
            )
            for name, speaker in list(result.speakers.items())[:MAX_SPEAKERS]
        ],
        "longest": [_row(result, lines[index]) for index in longest],
        "players": fair_limit((min(len(own), listed) for own in outputs.values()), MAX_PLAYERS),
        "message_length": MAX_MESSAGE,
    }


def _outputs(result: BatchResult, lines: Mapping[int, SegmentResult]) -> dict[str, list[int]]:
    """Speaker -> its segments that have an audio file, by index."""
    outputs = defaultdict(list)
    for index in result.results:
        if line := lines.get(index):
            outputs[line.speaker].append(index)
    return outputs


def _row(result: BatchResult, line: SegmentResult) -> OutputRow:
    output = result.results[line.segment]
    # Relative to OUT/.cloner/BATCH_ID/; outputs are relative to OUT.
    href = f"../../{quote(output)}"
    return OutputRow(line.segment, output, href, line.audio_s, line.reused)


def _grouped(errors: Mapping[int, SegmentError]) -> Iterator[ErrorGroup]:
    """Failures by code, the most frequent code first. Segments that were cancelled are no failures."""
    groups: dict[str, list[tuple[int, SegmentError]]] = defaultdict(list)
    for index, error in errors.items():
        if error.code != CANCELLED:
            groups[error.code].append((index, error))
    shown = fair_limit(map(len, groups.values()), MAX_ERRORS)
    for code, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield ErrorGroup(code, len(group), tuple(group[:shown]))


@cache
def _templates() -> Environment:
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters.update(number=_number, duration=_duration, time=_time, percent=_percent)
    return templates


@cache
def css() -> str:
    """The report's style sheet. Its colours are variables, with a light and a dark theme."""
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")


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
    """A fraction as a percentage, for text and for CSS."""
    return f"{100 * part / whole if whole else 0.0:.1f}".removesuffix(".0") + "%"
