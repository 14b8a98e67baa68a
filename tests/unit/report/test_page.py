"""A batch's report, parsed as HTML."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from cloner.protocol.results import BatchResult, SegmentError, SegmentResult, SpeakerResult, Suspect
from cloner.report import page as report
from cloner.report.rows import ListedSpeaker, Listing, OtherAudio, Row
from tests.support.hostile_names import HOSTILE_NAMES

EVIL = "\"'><script>window.hacked=1</script><img src=x onerror=alert(1)>{{ 7*7 }}"
VOID_TAGS = {"meta", "link", "img", "br", "input"}


class ParsedPage(HTMLParser):
    """The texts and tags of a page. Raises `AssertionError` unless every tag is closed in order."""

    def __init__(self, pieces: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scripts: list[str] = []
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
        (self.scripts if self._open[-1:] == ["script"] else self.texts).append(data)

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


def listing(result: BatchResult, lines: dict[int, SegmentResult], **changes: Any) -> Listing:
    """What the page lists of a batch, without what is read from the disk."""
    speakers = [ListedSpeaker(name, ".cloner/references/0.flac", f"I am {name}.") for name in result.speakers]
    number = {speaker.id: place for place, speaker in enumerate(speakers)}
    rows = [Row(index, number[line.speaker], f"Text {index}.", line.output) for index, line in lines.items()]
    return Listing(**{"rows": rows, "speakers": speakers, "total": len(rows), "is_judged": True, **changes})


def page(result: BatchResult, lines: dict[int, SegmentResult], **changes: Any) -> ParsedPage:
    return ParsedPage("".join(report.page(result, "main", listing(result, lines, **changes))))


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


def test_a_reference_is_played_by_its_address_relative_to_the_record(tmp_path: Path) -> None:
    result, lines = finished({"anna": 1})
    parsed = page(result, lines, speakers=[ListedSpeaker("anna", ".cloner/references/ä#1?.flac", "Hello.")])
    page_url = (tmp_path / f".cloner/{result.batch_id}/report.html").as_uri()
    (player,) = parsed.all("audio")
    at = urljoin(page_url, str(player["src"]))
    assert unquote(urlsplit(at).path) == str(tmp_path / ".cloner/references/ä#1?.flac")
    assert player["preload"] == "none"
    assert "Hello." in parsed.text


def test_a_reference_of_codes_has_no_player() -> None:
    result, lines = finished({"anna": 1})
    parsed = page(result, lines, speakers=[ListedSpeaker("anna", "", "Hello.")])
    assert not parsed.all("audio")
    assert "has codes, and no recording. Hello." in parsed.text


def test_suspects_are_counted() -> None:
    result, lines = finished({"anna": 3})
    suspects = {1: Suspect(speaker="anna", output="out/1.wav", failed=["too_quiet"])}
    parsed = page(result.model_copy(update={"suspects": suspects}), lines)
    assert "complete 1 suspect All 3 segments generated." in parsed.text
    assert "suspect" not in page(result, lines).text.partition("Segments")[0]


def test_the_page_says_what_it_does_not_show() -> None:
    result, lines = finished({"anna": 3})
    for changes, words in (
        ({"total": 1_000_000}, "3 of 1,000,000 segments are listed: suspects and failures, then the first of each"),
        ({"is_judged": False}, "No checks ran on this batch, so the list is in its order."),
        ({"problem": "the disk is gone"}, "Texts are missing: the disk is gone."),
    ):
        assert words in page(result, lines, **changes).text
        assert words not in page(result, lines).text


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
    parsed = ParsedPage(report.body(result, EVIL)) if in_flower else page(result, lines, problem=EVIL)
    assert len(parsed.all("script")) == (0 if in_flower else 2)
    assert not {"img", "iframe", "object", "form"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    # Each name is shown as it was given.
    assert "".join(parsed.texts).count(EVIL) >= 8


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_text_or_name_ends_the_block_that_the_script_reads(name: str) -> None:
    result, lines = finished({"anna": 1})
    row = Row(
        0, 0, name, name, id=name, failed=[name], error=name, others=[OtherAudio(label=name, path=name, peaks=b"\1")]
    )
    text = "".join(
        report.page(result, "main", listing(result, lines, rows=[row], speakers=[ListedSpeaker(name, name)]))
    )
    block = text.partition('id="listing">')[2].partition("</script>")[0]
    assert "<" not in block
    found = json.loads(block)
    assert found["speakers"] == [{"id": name, "reference": name}]
    assert found["rows"] == [
        {"index": 0, "speaker": 0, "text": name, "output": name, "id": name, "failed": [name], "error": name}
        | {"others": [{"label": name, "path": name, "peaks": "AQ=="}]}
    ]
    assert len(ParsedPage(text).all("script")) == 2


def test_every_class_of_the_page_has_a_style() -> None:
    parsed = page(*finished({"anna": 3, "ben": 2}, errors={3: "output"}, reused=(0,)))
    classes = {name for _, attributes in parsed.tags for name in (attributes.get("class") or "").split()}
    assert {"reused", "bad"} <= classes
    styles = "".join(path.read_text() for path in report.TEMPLATES.glob("*.css"))
    assert {name for name in classes if f".{name}" not in styles} == set()


def test_the_page_loads_nothing_external_and_runs_its_own_script_alone() -> None:
    result, lines = finished({"anna": 2})
    text = "".join(report.page(result, "main", listing(result, lines)))
    assert "https:" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http:") == 0, "but for the name of SVG's elements"
    parsed = ParsedPage(text)
    (policy,) = [meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv")]
    assert policy
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")
    own = text.rpartition("<script>")[2].partition("</script>")[0]
    assert own == report.script()
    assert rules["script-src"] == f"'sha256-{b64encode(sha256(own.encode()).digest()).decode()}'"
    assert [attributes.get("type") for attributes in parsed.all("script")] == ["application/json", None]


@pytest.mark.parametrize(
    "kind", ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch("]
)
def test_the_script_handles_texts_as_texts(kind: str) -> None:
    assert kind not in report.script()


def test_the_report_in_flower_has_no_outputs() -> None:
    result, _ = finished({"anna": 3, "ben": 2}, errors={3: "output"})
    parsed = ParsedPage(report.body(result, "main"))
    assert not parsed.all("audio")
    assert not parsed.all("a")
    assert "ben 1 of 2 texts 6.0 s 1 failed" in parsed.text
    assert f".cloner/{result.batch_id}/report.html" in parsed.text


def test_what_exceeds_the_limits_of_a_page_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in {"MAX_SPEAKERS": 3, "MAX_ERRORS": 2}.items():
        monkeypatch.setattr(report, name, limit)
    sizes = {"anna": 8, "ben": 1, "carl": 9, "dora": 1}
    parsed = page(*finished(sizes, errors=dict.fromkeys((10, 11, 12), "output")))
    assert "1 more are in result.json" in parsed.text  # of the failures
    assert "1 more speakers are in result.json" in parsed.text
    assert "anna 8 of 8 texts" in parsed.text
    assert "dora 1 of 1" not in parsed.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3.14, "3.1 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (90_061, "25 h 1 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert report._duration(seconds) == text
