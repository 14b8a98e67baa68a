"""A batch's report, parsed as HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner.protocol.results import BatchResult, SegmentError, SegmentResult, SpeakerResult
from cloner.report import page as report

EVIL = "\"'><script>window.hacked=1</script><img src=x onerror=alert(1)>{{ 7*7 }}"
VOID_TAGS = {"meta", "link", "img", "br", "input"}


class ParsedPage(HTMLParser):
    """The texts and tags of a page. Raises `AssertionError` unless every tag is closed in order."""

    def __init__(self, pieces: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(pieces)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def finished(
    sizes: dict[str, int], errors: dict[int, str] | None = None, reused: tuple[int, ...] = (), name: str = "out"
) -> tuple[BatchResult, dict[int, SegmentResult]]:
    """A batch's result and its record's lines; `sizes` are texts by speaker, `errors` are codes by segment."""
    errors = errors or {}
    lines: dict[int, SegmentResult] = {}
    failures: dict[int, SegmentError] = {}
    speakers: dict[str, SpeakerResult] = {}
    index = 0
    for speaker, size in sizes.items():
        mine = range(index, index + size)
        index += size
        for segment in mine:
            output = f"{name}/{segment}.wav"
            if segment in errors:
                failures[segment] = SegmentError(
                    speaker=speaker, output=output, code=errors[segment], message=f"Why {segment} failed."
                )
            else:
                lines[segment] = SegmentResult(
                    segment=segment,
                    speaker=speaker,
                    output=output,
                    key="k",
                    assignment=0,
                    worker="cpu.0@box",
                    frames=43,
                    audio_s=2.0 + segment,
                    reused=segment in reused,
                )
        own = [lines[segment] for segment in mine if segment in lines]
        speakers[speaker] = SpeakerResult(
            texts=size, generated=len(own), failed=size - len(own), audio_s=sum(line.audio_s for line in own)
        )
    result = BatchResult(
        batch_id="20261125-200824-a1b2c3",
        source="batch.yaml",
        total=index,
        generated=len(lines),
        failed=len(failures),
        cancelled="cancelled" in errors.values(),
        out_dir="/cloner/out",
        results={segment: line.output for segment, line in lines.items()},
        errors=failures,
        reused=len(reused),
        reused_audio_s=sum(lines[segment].audio_s for segment in reused),
        submitted_at=1795637304.0,
        elapsed_s=10.0,
        audio_s=sum(line.audio_s for line in lines.values()),
        frames=43 * len(lines),
        workers={"cpu.0@box": len(lines)},
        speakers=speakers,
        engine="batched",
        fingerprint="9f2c4b1e",
    )
    return result, lines


def page(result: BatchResult, lines: dict[int, SegmentResult]) -> ParsedPage:
    return ParsedPage("".join(report.page(result, "main", lines)))


def test_the_page_shows_outcome_figures_and_failures() -> None:
    parsed = page(*finished({"anna": 3, "ben": 2}, errors={3: "output"}, reused=(0,)))
    for words in (
        "batch.yaml",
        "1 failure 4 of 5 segments generated, 1 failed.",
        "3 generated 1 reused from earlier batches 1 failed",
        "Audio 15.0 s",
        "Time 10.0 s",
        # Without the reused segments, which took no time of this batch.
        "Speed 1.3 audio-seconds a second",
        "output 1 segment 3 out/3.wav of speaker ben Why 3 failed.",
        "anna 3 of 3 texts 9.0 s",
        "ben 1 of 2 texts 6.0 s 1 failed",
        "cpu.0@box 4 segments 100%",
        "20261125-200824-a1b2c3",
        "Fleet main Engine batched Checkpoint's fingerprint 9f2c4b1e",
        "Submitted 2026-11-25 20:08:24 UTC Closed 2026-11-25 20:08:34 UTC",
    ):
        assert words in parsed.text


def test_a_complete_batch_has_no_section_of_failures() -> None:
    parsed = page(*finished({"anna": 1}))
    assert "complete All 1 segment generated." in parsed.text
    assert "Failures" not in parsed.text


def test_cancelled_segments_are_no_failures() -> None:
    parsed = page(*finished({"anna": 4}, errors=dict.fromkeys((1, 2, 3), "cancelled")))
    assert "cancelled 1 of 4 segments generated, 3 not generated." in parsed.text
    assert "Failed 0" in parsed.text
    assert "Failures" not in parsed.text


def test_every_output_has_a_link_relative_to_the_record_and_a_player(tmp_path: Path) -> None:
    odd = "ä b/100%/#1?x='\"&<i>"
    result, lines = finished({"anna": 2}, name=odd)
    parsed = page(result, lines)
    page_url = (tmp_path / f".cloner/{result.batch_id}/report.html").as_uri()
    files = {
        unquote(urlsplit(urljoin(page_url, str(at))).path)
        for at in [a["href"] for a in parsed.all("a")[:2]] + [a["src"] for a in parsed.all("audio")]
    }
    assert files == {str(tmp_path / odd / "0.wav"), str(tmp_path / odd / "1.wav")}
    assert {player["preload"] for player in parsed.all("audio")} == {"none"}


@pytest.mark.parametrize("in_flower", [False, True])
def test_untrusted_names_are_escaped(in_flower: bool) -> None:
    result, lines = finished({EVIL: 2}, errors={1: "output"}, name=EVIL.replace("/", "_"))
    values: dict[str, object] = {
        "source": EVIL,
        "out_dir": EVIL,
        "workers": {EVIL: 1},
        "engine": EVIL,
        "fingerprint": EVIL,
    }
    values["errors"] = {1: result.errors[1].model_copy(update={"code": EVIL, "message": EVIL})}
    result = result.model_copy(update=values)
    parsed = ParsedPage(report.body(result, EVIL)) if in_flower else page(result, lines)
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    # Each name is shown as it was given.
    assert "".join(parsed.texts).count(EVIL) >= 8


def test_every_class_of_the_page_has_a_style() -> None:
    parsed = page(*finished({"anna": 3, "ben": 2}, errors={3: "output"}, reused=(0,)))
    classes = {name for _, attributes in parsed.tags for name in (attributes.get("class") or "").split()}
    assert {"reused", "bad"} <= classes
    assert {name for name in classes if f".{name}" not in report.css()} == set()


def test_the_page_loads_nothing_external_and_runs_no_script() -> None:
    result, lines = finished({"anna": 2})
    text = "".join(report.page(result, "main", lines))
    assert "http:" not in text
    assert "https:" not in text
    (policy,) = [meta["content"] for meta in ParsedPage(text).all("meta") if meta.get("http-equiv")]
    assert policy
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_the_report_in_flower_has_no_outputs() -> None:
    result, _ = finished({"anna": 3, "ben": 2}, errors={3: "output"})
    parsed = ParsedPage(report.body(result, "main"))
    assert not parsed.all("audio")
    assert not parsed.all("a")
    assert "ben 1 of 2 texts 6.0 s 1 failed" in parsed.text
    assert f".cloner/{result.batch_id}/report.html" in parsed.text


@pytest.mark.slow
def test_a_large_batch_has_all_its_links_and_some_players() -> None:
    result, lines = finished({f"speaker{number}": 1000 for number in range(100)})
    text = "".join(report.page(result, "main", lines))
    assert len(text) < 20_000_000
    # Besides a link to the result, and the longest segments with their players.
    assert text.count("<a href=") == 100_000 + report.LONGEST + 1
    assert text.count("<audio ") == report.MAX_PLAYERS + report.LONGEST
    assert "The first 5 of each can be played here" in text


def test_what_exceeds_the_limits_of_a_page_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in {"MAX_LINKS": 6, "MAX_SPEAKERS": 3, "MAX_ERRORS": 2, "MAX_PLAYERS": 2}.items():
        monkeypatch.setattr(report, name, limit)
    sizes = {"anna": 8, "ben": 1, "carl": 9, "dora": 1}
    parsed = page(*finished(sizes, errors=dict.fromkeys((10, 11, 12), "output")))
    assert "1 more are in result.json" in parsed.text  # of the failures
    assert "1 more speakers are in result.json" in parsed.text
    assert "anna 8 of 8 texts" in parsed.text
    assert "6 more are in result.json" in parsed.text  # of Anna's outputs: two of each
    assert "dora" not in parsed.text


@given(sizes=st.lists(st.integers(0, 50)), total=st.integers(0, 200))
def test_a_fair_limit_is_the_largest_that_fits(sizes: list[int], total: int) -> None:
    limit = report.fair_limit(sizes, total)
    assert sum(min(size, limit) for size in sizes) <= total
    if sizes and limit < max(sizes):
        assert sum(min(size, limit + 1) for size in sizes) > total


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3.14, "3.1 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (90_061, "25 h 1 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert report._duration(seconds) == text
