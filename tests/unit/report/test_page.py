"""The page about a batch, read as a browser reads it."""

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
NO_END = {"meta", "link", "img", "br", "input"}


class Read(HTMLParser):
    """What is on a page. Every tag is closed where it should be."""

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
        if tag not in NO_END:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())


def finished(
    sizes: dict[str, int], errors: dict[int, str] | None = None, reused: tuple[int, ...] = (), name: str = "out"
) -> tuple[BatchResult, dict[int, SegmentResult]]:
    """A batch's result and its record: speakers with so many texts; `errors` are segments with their code."""
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
                    truncated=segment == 1,
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
        truncated=tuple(segment for segment, line in lines.items() if line.truncated),
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


def page(result: BatchResult, lines: dict[int, SegmentResult]) -> Read:
    return Read("".join(report.page(result, "main", lines)))


def test_it_says_what_came_of_the_batch() -> None:
    read = page(*finished({"anna": 3, "ben": 2}, errors={3: "output"}, reused=(0,)))
    for words in (
        "batch.yaml",
        "1 failure 4 of 5 segments generated, 1 failed.",
        "3 generated 1 reused over from earlier batches 1 failed",
        "Audio 15.0 s",
        "Time 10.0 s",
        # What an earlier batch has generated took no time of this one.
        "Speed 1.3 audio-seconds a second",
        "output 1 segment 3 out/3.wav of speaker ben Why 3 failed.",
        "Cut short 1 segment reached max_new_tokens",
        "anna 3 of 3 texts 9.0 s",
        "ben 1 of 2 texts 6.0 s 1 failed",
        "cpu.0@box 4 segments 100%",
        "20261125-200824-a1b2c3",
        "Fleet main Engine batched Checkpoint's fingerprint 9f2c4b1e",
        "Submitted 2026-11-25 20:08:24 UTC Closed 2026-11-25 20:08:34 UTC",
    ):
        assert words in read.words


def test_all_that_went_well_is_one_sentence() -> None:
    read = page(*finished({"anna": 1}))
    assert "complete All 1 segment generated." in read.words
    assert "Failures" not in read.words


def test_what_was_never_spoken_because_of_a_cancel_is_no_failure() -> None:
    read = page(*finished({"anna": 4}, errors=dict.fromkeys((1, 2, 3), "cancelled")))
    assert "cancelled 1 of 4 segments generated, 3 never spoken." in read.words
    assert "Failed 0" in read.words
    assert "Failures" not in read.words


def test_every_output_is_a_link_from_the_record_and_can_be_played(tmp_path: Path) -> None:
    odd = "ä b/100%/#1?x='\"&<i>"
    result, lines = finished({"anna": 2}, name=odd)
    read = page(result, lines)
    there = (tmp_path / f".cloner/{result.batch_id}/report.html").as_uri()
    files = {
        unquote(urlsplit(urljoin(there, str(at))).path)
        for at in [a["href"] for a in read.all("a")[:2]] + [a["src"] for a in read.all("audio")]
    }
    assert files == {str(tmp_path / odd / "0.wav"), str(tmp_path / odd / "1.wav")}
    assert {player["preload"] for player in read.all("audio")} == {"none"}


@pytest.mark.parametrize("in_flower", [False, True])
def test_strangers_words_are_words_and_nothing_else(in_flower: bool) -> None:
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
    read = Read(report.body(result, EVIL)) if in_flower else page(result, lines)
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in read.tags}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    # Each of them is there as it was written, as people read it.
    assert "".join(read.texts).count(EVIL) >= 8


def test_the_page_asks_nobody_for_anything_and_runs_no_script() -> None:
    result, lines = finished({"anna": 2})
    text = "".join(report.page(result, "main", lines))
    assert "http:" not in text
    assert "https:" not in text
    (policy,) = [meta["content"] for meta in Read(text).all("meta") if meta.get("http-equiv")]
    assert policy
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_flower_which_sees_no_outputs_shows_none() -> None:
    result, _ = finished({"anna": 3, "ben": 2}, errors={3: "output"})
    read = Read(report.body(result, "main"))
    assert not read.all("audio")
    assert not read.all("a")
    assert "ben 1 of 2 texts 6.0 s 1 failed" in read.words
    assert f".cloner/{result.batch_id}/report.html" in read.words


def test_a_large_batch_has_all_its_links_and_some_players_and_says_so() -> None:
    result, lines = finished({f"speaker{number}": 1000 for number in range(100)})
    text = "".join(report.page(result, "main", lines))
    assert len(text) < 20_000_000
    # And a link to the result, and the longest ones with their players.
    assert text.count("<a href=") == 100_000 + report.LONGEST + 1
    assert text.count("<audio ") == report.PLAYERS + report.LONGEST
    assert "The first 5 of each can be played here" in text


def test_what_is_too_much_for_a_page_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in {"OUTPUTS": 6, "SPEAKERS": 3, "ERRORS": 2, "PLAYERS": 2}.items():
        monkeypatch.setattr(report, name, most)
    sizes = {"anna": 8, "ben": 1, "carl": 9, "dora": 1}
    read = page(*finished(sizes, errors=dict.fromkeys((10, 11, 12), "output")))
    assert "1 more are in result.json" in read.words  # of the failures
    assert "1 more speakers are in result.json" in read.words
    assert "anna 8 of 8 texts" in read.words
    assert "6 more are in result.json" in read.words  # of Anna's outputs: two of each
    assert "dora" not in read.words


@given(sizes=st.lists(st.integers(0, 50)), most=st.integers(0, 200))
def test_a_share_is_as_much_as_there_is_room_for(sizes: list[int], most: int) -> None:
    each = report.share(sizes, most)
    assert sum(min(size, each) for size in sizes) <= most
    if sizes and each < max(sizes):
        assert sum(min(size, each + 1) for size in sizes) > most


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (3.14, "3.1 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (90_061, "25 h 1 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert report._duration(seconds) == said
