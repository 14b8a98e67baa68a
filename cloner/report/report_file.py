"""The report that lies beside a batch's record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloner.output.audio_files import OutputRoot
from cloner.protocol.results import BatchResult, SegmentResult
from cloner.report.listing import read_listing
from cloner.report.page import page

REPORT = "report.html"


def report_file(root: Path, result: BatchResult, fleet: str, lines: Mapping[int, SegmentResult]) -> Iterator[str]:
    """The page in pieces, of a batch under that output root; `lines` are its record's, by segment."""
    yield from page(result, fleet, read_listing(OutputRoot(root), result, lines))
