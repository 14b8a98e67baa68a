"""A batch's report for people: one HTML page that needs no network.

The page ``OUT/.cloner/BATCH_ID/report.html`` lists the segments with their texts and plays them, by a script of its
own; marks stay in the browser. Flower, which has no access to the outputs, shows the same report without the list and
without script. Names and texts come from untrusted input: Jinja escapes them all, the script handles them as text, and
the page's content security policy allows that one script, by its hash, and no connection.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from cloner.protocol.content_key import NO_CHECKPOINT
from cloner.protocol.results import BatchResult, SegmentError
from cloner.report.rows import CANCELLED, ListedSpeaker, Listing, fair_limit

TEMPLATES = Path(__file__).parent / "templates"

SCRIPTS = ("players.js", "marks.js", "list.js")

MAX_SPEAKERS = 2_000
MAX_ERRORS = 1_000
"""The most speakers and failures on a page: a browser must be able to open it."""

MAX_MESSAGE = 400
"""Characters of a failure's message that are shown."""


@dataclass(frozen=True)
class SpeakerSection:
    """One speaker, with its reference's recording where the page can play it."""

    id: str
    texts: int
    generated: int
    failed: int
    cancelled: int
    audio_s: float
    reference: str
    """Relative to the page; empty if there is none."""
    transcript: str


@dataclass(frozen=True)
class ErrorGroup:
    """Segments that failed with one code: their number, and those that are shown, by index."""

    code: str
    count: int
    shown: tuple[tuple[int, SegmentError], ...]


def page(result: BatchResult, fleet: str, listing: Listing) -> Iterator[str]:
    """Yield the page that is stored beside the record, in pieces."""
    values = _values(result, fleet, {speaker.id: speaker for speaker in listing.speakers})
    text = script()
    yield from (
        _templates()
        .get_template("page.html")
        .generate(
            values,
            css=css() + _file("list.css"),
            script=text,
            script_hash=b64encode(sha256(text.encode()).digest()).decode(),
            listing=listing,
            listing_json=listing.json(result.batch_id),
            has_outputs=True,
        )
    )


def body(result: BatchResult, fleet: str) -> str:
    """Return the report without outputs, as a fragment for a page that includes `css` and may override its colours."""
    return _templates().get_template("body.html").render(_values(result, fleet, {}), has_outputs=False)


def _values(result: BatchResult, fleet: str, listed: Mapping[str, ListedSpeaker]) -> dict[str, Any]:
    cancelled = Counter(error.speaker for error in result.errors.values() if error.code == CANCELLED)
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
                reference=_address(listed[name].reference) if name in listed else "",
                transcript=listed[name].transcript if name in listed else "",
            )
            for name, speaker in list(result.speakers.items())[:MAX_SPEAKERS]
        ],
        "message_length": MAX_MESSAGE,
    }


def _address(path: str) -> str:
    """The address of a file, which is relative to OUT, as seen from OUT/.cloner/BATCH_ID/; empty if there is none."""
    return f"../../{quote(path)}" if path else ""


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
    return _file("report.css")


@cache
def script() -> str:
    """The script of the page that is stored."""
    return "".join(map(_file, SCRIPTS))


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


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
