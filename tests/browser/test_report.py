"""A batch's report, in Flower and as a file in a browser."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.chromium import Page
from tests.support.processes import Launch
from tests.support.web_services import LOGIN, running_flower

EVIL = "<script>window.hacked = 1</script>"

LOAD_ALL_AUDIO = """Promise.all([...document.querySelectorAll('.segments .player')].map(
  (player) => new Promise((settle) => {
    const loaded = new Audio(player.address);
    loaded.onloadedmetadata = () => settle(loaded.duration > 0);
    loaded.onerror = () => settle(loaded.error.message);
  })
))"""
"""Whether each file that a row can play is audio; else the browser's message."""


def test_a_batchs_report_is_a_click_away_and_plays_its_audio(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page, pictures: Path
) -> None:
    (settings.out_dir / "batch/audio/2.wav").mkdir(parents=True)  # so that one segment fails
    launch("--workers", "1", fake_slots=4).wait_for(Event.MODELS_LOADED)
    path = write_batch(tmp_path, [5, 4])
    batch = json.loads(path.read_text())
    for task in batch["tasks"]:
        task["speaker_id"] = f"{EVIL}{task['speaker_id']}"
    path.write_text(json.dumps(batch))
    handle = client.submit(path)
    assert handle.wait(timeout=120).generated == 8

    with running_flower(settings, tmp_path) as address:
        page.look(1280, 900, "light")
        page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
        page.wait_for("document.querySelectorAll('#finished .links:not([hidden])').length === 1")
        assert page.eval("document.querySelector('#finished [data-is=report]').textContent") == "Report"
        page.eval("document.querySelector('#finished [data-is=report]').click()")
        page.wait_for(f"location.pathname === '/fleet/batch/{handle.id}' && document.readyState === 'complete'")
        _look(page, pictures / "report")
        assert "Sentence" not in page.text()
        assert page.eval("document.querySelectorAll('audio').length") == 0
        page.eval("document.querySelector('.crumbs a').click()")
        page.wait_for("location.pathname === '/fleet'")

    page.goto((settings.out_dir / f".cloner/{handle.id}/report.html").as_uri())
    _look(page, pictures / "report-file")
    texts = page.eval("[...document.querySelectorAll('.segments .text')].map((text) => text.textContent)")
    assert texts == [f"Sentence {index} of the batch." for index in range(9)]
    assert page.eval(LOAD_ALL_AUDIO) == [True] * 8


def _look(page: Page, picture: Path) -> None:
    for words in (
        "batch.json",
        "8 of 9 segments generated, 1 failed.",
        f"{EVIL}1",
        "batch/audio/2.wav cannot be written",
    ):
        assert words in page.text()
    for (width, height), scheme in product([(1280, 900), (390, 844)], ["light", "dark"]):
        page.look(width, height, scheme)
        assert page.eval("document.documentElement.scrollWidth <= window.innerWidth")
        page.shoot(picture.with_name(f"{picture.name}-{width}-{scheme}.png"))
    assert page.eval("window.hacked") is None
