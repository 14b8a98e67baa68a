"""The list of segments in a stored report: played, searched, marked, and what is marked is spoken again."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from cloner import Client
from cloner.collector.result import gather
from cloner.events import Event
from cloner.protocol.results import SegmentResult
from cloner.report.page import page as pieces_of_page
from cloner.report.rows import Row
from cloner.settings import Settings
from cloner.validation import name_flaw
from tests.support.batches import write_batch
from tests.support.chromium import Page
from tests.support.closed_batches import close_batch, write_report
from tests.support.hostile_names import HOSTILE_NAMES
from tests.support.polling import eventually
from tests.support.processes import Launch, environment, run_cloner
from tests.support.reviews import FinishedBatch, answers, run_windows
from tests.support.stub_reviewer import BAD, GOOD
from tests.unit.report.test_page import finished, listing

ROWS = "[...document.querySelectorAll('.segments > li')].map((item) => item.row.index)"
"""The segments in the list, as far as it is made."""

TEXTS = {
    "anna": ["The lamp had burned all night, and the oil was low.", "She said nothing.", "It rained. " * 30],
    "ben": ["“Nobody has looked in the cellar since spring.”", "وصل القطار متأخرا كعادته.", "Chapter two."],
}


def opened(page: Page, path: Path, width: int = 1280, scheme: str = "light") -> None:
    page.look(width, 900, scheme)
    page.goto(path.as_uri())
    page.wait_for("document.querySelectorAll('.segments > li').length > 0")


def button(name: str) -> str:
    """A script that presses one of the buttons above the list."""
    return (
        f"[...document.querySelectorAll('#filters button')].find((one) => one.textContent.startsWith('{name}')).click()"
    )


def type_in(field: str, value: str) -> str:
    """A script that gives a field a value, as a user does."""
    typed = f"element({field!r}).value = {json.dumps(value)}"
    return f"{typed}; element({field!r}).dispatchEvent(new Event('input'))"


def suspect(line: SegmentResult) -> SegmentResult:
    if line.segment == 5:
        return replace(line, code="cut_off", message="it is cut after 1024 frames")
    return replace(line, suspicion={2: 1.4, 4: 2.5}.get(line.segment, 0.3))


def test_what_is_marked_in_the_browser_is_spoken_again_and_both_takes_are_heard(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page
) -> None:
    launch("--workers", "1", fake_slots=4).wait_for(Event.MODELS_LOADED)
    handle = client.submit(write_batch(tmp_path, [3, 3]))
    assert handle.wait(timeout=120).generated == 6
    report = settings.out_dir / f".cloner/{handle.id}/report.html"
    page.save_downloads_in(tmp_path)
    opened(page, report)
    page.eval("localStorage.clear()")
    assert "No checks ran on this batch" in page.text()
    assert page.eval(ROWS) == [0, 1, 2, 3, 4, 5]

    page.eval("document.getElementById('segments').scrollIntoView()")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.eval("document.activeElement.row.index") == 1
    page.press(" ")
    page.wait_for("audio.currentTime > 0")
    assert page.eval("decodeURIComponent(audio.src)").endswith("/batch/audio/1.wav")
    page.press("b")
    page.press("ArrowDown")
    page.press("g")
    page.eval(type_in("search", "SENTENCE 4 OF"))
    assert page.eval(ROWS) == [4]
    page.click(".mark.bad")
    page.eval(type_in("search", ""))
    page.eval(button("Bad"))
    assert page.eval(ROWS) == [1, 4]

    opened(page, report)
    assert page.eval("document.getElementById('save').textContent") == "Save marks (3)"
    page.click("#save")
    marked = tmp_path / f"marked-{handle.id}.json"
    eventually(marked.exists)
    assert json.loads(marked.read_text()) == {"batch": handle.id, "bad": [1, 4], "good": [2]}

    command = ["redo", handle.id, "--marked", str(marked), "--wait"]
    ran = run_cloner(*command, cwd=tmp_path, env=environment(settings))
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert sorted(result["results"]) == ["1", "4"]
    opened(page, settings.out_dir / f".cloner/{result['batch_id']}/report.html")
    assert page.eval("listing.rows.map((row) => [row.index, row.take, row.others.map((other) => other.label)])") == [
        [1, 2, ["take 1"]],
        [4, 2, ["take 1"]],
    ]
    assert page.eval(
        "listing.rows.every((row) => row.peaks && row.others[0].peaks && row.others[0].peaks !== row.peaks)"
    )
    for player in (".segments > li > .player .play", ".others .play"):
        page.click(player)
        page.wait_for("audio.currentTime > 0")
    assert "/takes/" in page.eval("audio.src")
    assert page.eval("marks.size") == 0, "they are another batch's"

    # The first batch's report, written again, has the takes side by side, too.
    ran = run_cloner("report", handle.id, cwd=tmp_path, env=environment(settings))
    assert ran.stdout.strip() == str(report)
    opened(page, report)
    assert page.eval("listing.rows.map((row) => row.others?.length ?? 0)") == [0, 1, 0, 0, 1, 0]


def test_attempts_that_were_not_kept_are_heard_beside_the_one_that_was(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page
) -> None:
    launch("--workers", "1", fake_slots=4).wait_for(Event.MODELS_LOADED)
    # Tones are no speech: every attempt fails a check.
    handle = client.submit(write_batch(tmp_path, [2], generation={"checks": True, "attempts": 3}))
    assert set(handle.wait(timeout=120).suspects) == {0, 1}
    opened(page, settings.out_dir / f".cloner/{handle.id}/report.html")
    assert "2 suspects" in page.text()
    assert "No checks ran" not in page.text()
    assert page.eval("listing.judged && listing.rows.every((row) => row.suspicion > 1 && row.failed.length)")
    labels = page.eval("listing.rows.map((row) => row.others.map((other) => other.label.replace(/:.*/, '')))")
    assert all(len(own) == 2 and set(own) < {"attempt 1", "attempt 2", "attempt 3"} for own in labels)
    assert page.eval("listing.rows.every((row) => row.others.every((other) => other.peaks))")
    page.click(".others .play")
    page.wait_for("audio.currentTime > 0")
    assert "/attempts/" in page.eval("audio.src")


def test_suspects_come_first_and_the_page_fits_every_screen(tmp_path: Path, page: Page, pictures: Path) -> None:
    report = write_report(tmp_path, *close_batch(tmp_path, TEXTS, change=suspect))
    for width, scheme in product([1280, 390], ["light", "dark"]):
        opened(page, report, width, scheme)
        page.eval("localStorage.clear(); readMarks(); showMarks()")
        assert page.eval(ROWS) == [4, 2, 5, 0, 1, 3]
        page.eval("select(shown[1]); setMark(shown[1], 'bad'); setMark(shown[3], 'good')")
        assert page.eval("document.documentElement.scrollWidth <= window.innerWidth")
        page.shoot(pictures / f"listing-{width}-{scheme}.png")
    page.eval(button("Suspects"))
    assert page.eval(ROWS) == [4, 2]
    page.eval(button("Failed"))
    assert "it is cut after 1024 frames" in page.eval("document.querySelector('.segments').textContent")
    page.eval("select(shown[0])")
    page.press(" ")
    assert page.eval("playing") is None, "it has no audio, and its reference is another's"
    page.eval(button("All"))
    page.eval(type_in("order", "By length"))
    assert page.eval("shown.every((row, at) => !at || (row.seconds ?? 0) <= shown[at - 1].seconds)")
    page.eval(type_in("speaker", "1"))
    assert sorted(page.eval(ROWS)) == [3, 4, 5]
    page.eval(type_in("search", "nowhere"))
    assert page.eval(ROWS) == []
    assert "No segment matches." in page.text()
    # The reference that the speakers' list and each row play.
    page.eval(type_in("search", "cellar"))
    page.click(".reference-player .play")
    page.wait_for("audio.currentTime > 0")
    assert "/.cloner/references/" in page.eval("audio.src")


def test_what_was_not_heard_or_not_whole_is_said(tmp_path: Path, page: Page, pictures: Path) -> None:
    batch = FinishedBatch(
        tmp_path, 3, "all", change=lambda line: replace(line, audio_s=400.0) if line.segment == 2 else line
    )
    run_windows(batch.review(), answers({"1.1": BAD}, GOOD))
    batch.speak(1, 2, batch.record().results[1].digest)
    record = batch.record()
    reviews = batch.review(record).present
    result = gather(batch.manifest, record, tmp_path, cancelled=False, progress={}, now=1795752042.0, reviews=reviews)
    report = write_report(tmp_path, result, record)
    for width, scheme in product([1280, 390], ["light", "dark"]):
        opened(page, report, width, scheme)
        assert page.eval(ROWS) == [1, 0, 2]
        pills = page.eval("[...document.querySelectorAll('.segments .pill')].map((pill) => pill.textContent)")
        assert pills == ["suspect: not heard by the review, and the take before failed wrong words, wrong run"]
        facts = page.eval("[...document.querySelectorAll('.segments .facts')].map((line) => line.textContent)")
        assert ["words of its beginning" in line for line in facts] == [False, False, True]
        assert page.eval("document.documentElement.scrollWidth <= window.innerWidth")
        page.shoot(pictures / f"not-heard-{width}-{scheme}.png")


def test_hostile_texts_and_names_are_shown_and_not_run(tmp_path: Path, page: Page) -> None:
    speakers = [name for name in HOSTILE_NAMES if not name_flaw(name)]
    assert len(speakers) >= 8
    odd = "50% #1? \"&<b>' ä 日本"
    texts = {name: [name] for name in speakers} | {"others": [*HOSTILE_NAMES]}
    result, record = close_batch(tmp_path, texts, folder=odd)
    opened(page, write_report(tmp_path, result, record))
    found = page.eval("[...document.querySelectorAll('.segments .text')].map((line) => line.textContent)")
    assert found == [*speakers, *HOSTILE_NAMES]
    names = page.eval("[...document.querySelectorAll('.segments .facts bdi')].map((name) => name.textContent)")
    assert names == [*speakers, *["others"] * len(HOSTILE_NAMES)]
    page.eval(type_in("search", HOSTILE_NAMES[0]))
    assert len(page.eval(ROWS)) == 2
    page.click(".segments .play")
    page.wait_for("audio.currentTime > 0")
    assert odd in page.eval("decodeURIComponent(audio.src)")
    assert page.eval("window.hacked") is None
    blocked = """new Promise((settle) => {
      document.addEventListener('securitypolicyviolation', (event) => settle(event.violatedDirective));
      %s;
    })"""
    assert page.eval(blocked % "fetch('data:,x').catch(() => {})") == "connect-src"
    assert (
        page.eval(blocked % "document.body.append(make('script', { textContent: 'window.hacked = 1' }))")
        == "script-src-elem"
    )
    assert page.eval("window.hacked") is None


def test_ten_thousand_rows_are_made_as_they_are_scrolled_to(tmp_path: Path, page: Page) -> None:
    result, lines = finished({f"speaker {number}": 500 for number in range(20)})
    path = tmp_path / "report.html"
    path.write_text("".join(pieces_of_page(result, "main", listing(result, lines))))
    opened(page, path)
    assert page.eval(f"{ROWS}.length") == 50
    assert "10,000 of 10,000" in page.text()
    page.eval("document.getElementById('rows').scrollTop = 1e9")
    page.wait_for(f"{ROWS}.length > 50")
    page.eval("select(shown[9999])")
    assert page.eval(f"{ROWS}.length") == 10_000
    page.eval(type_in("search", "text 777."))
    assert page.eval(ROWS) == [777]


def test_what_cannot_be_played_or_kept_is_said(tmp_path: Path, page: Page) -> None:
    report = write_report(tmp_path, *close_batch(tmp_path, TEXTS))
    (tmp_path / "book/0.wav").unlink()
    opened(page, report)
    page.eval("localStorage.clear()")
    page.click(".segments .play")
    page.wait_for("document.getElementById('problem').textContent.includes('book/0.wav cannot be played')")
    page.eval("Storage.prototype.setItem = () => { throw new Error('it is full'); }")
    page.press("b")
    assert "Marks cannot be kept in this browser: it is full. Save them" in page.text()
    page.press("ArrowDown")
    page.press("g")
    assert page.eval("document.getElementById('save').textContent") == "Save marks (2)"


def test_segments_whose_numbers_javascript_would_round_are_marked_by_their_outputs(tmp_path: Path, page: Page) -> None:
    result, lines = finished({"anna": 3})
    rows = [Row(index, 0, "Text.", f"{place}.wav") for place, index in enumerate((11, 2, 2**63 - 1))]
    path = tmp_path / "report.html"
    path.write_text("".join(pieces_of_page(result, "main", listing(result, lines, rows=rows))))
    opened(page, path)
    page.eval("localStorage.clear(); for (const row of listing.rows) setMark(row, 'bad')")
    assert page.eval("marked('bad')") == [11, 2, "2.wav"]
    assert f"#{2**63 - 1}" in page.text()


def test_a_mark_is_of_one_take(tmp_path: Path, page: Page) -> None:
    opened(page, write_report(tmp_path, *close_batch(tmp_path, TEXTS)))
    page.eval("localStorage.clear(); for (const row of listing.rows.slice(0, 2)) setMark(row, 'bad')")
    assert page.eval("marked('bad')") == [0, 1]
    page.eval("listing.rows[0].take = 2; showMarks()")  # as in the report that is written after a redo
    assert page.eval("marked('bad')") == [1]
    assert page.eval("document.getElementById('save').textContent") == "Save marks (1)"


def test_marks_of_another_tab_are_kept(tmp_path: Path, page: Page) -> None:
    opened(page, write_report(tmp_path, *close_batch(tmp_path, TEXTS)))
    page.eval("localStorage.clear(); readMarks(); showMarks()")
    other: dict[str, Any] = {"3 1": "bad"}
    page.eval(f"localStorage.setItem(storageKey, {json.dumps(json.dumps(other))})")
    page.eval("select(shown[0])")
    page.press("g")
    assert dict(page.eval("[...marks]")) == {"3 1": "bad", "0 1": "good"}
    page.press("g")
    assert page.eval("[...marks]") == [["3 1", "bad"]], "the same key takes a mark away"
