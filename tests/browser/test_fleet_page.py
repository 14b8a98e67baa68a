"""The fleet page with hostile texts and without Redis. `tests/compose` has the page of a whole fleet."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event as Flag

from cloner import Client
from cloner.events import Event
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.chromium import Page
from tests.support.processes import Launch
from tests.support.redis_server import RedisServer
from tests.support.stub_reviewer import GOOD, stub_reviewer
from tests.support.web_services import LOGIN, running_flower

EVIL = "<script>window.hacked = 1</script>"


def test_names_that_are_programs_are_shown_and_not_run(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page
) -> None:
    launch("--workers", "1", fake_slots=4).wait_for(Event.MODELS_LOADED)
    batch = json.loads(write_batch(tmp_path, [2, 1]).read_text())
    for task in batch["tasks"]:
        task["speaker_id"] = f"{EVIL}{task['speaker_id']}"
    evil = tmp_path / f"{EVIL.replace('/', '_')}.json"
    evil.write_text(json.dumps(batch))
    with running_flower(settings, tmp_path) as address:
        page.look(1280, 900, "light")
        page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
        page.wait_for("document.querySelectorAll('.worker .pill[data-state=ready]').length === 1")
        handle = client.submit(evil)
        handle.wait(timeout=120)
        page.wait_for("document.querySelectorAll('#finished .batch').length === 1")
        assert evil.name in page.text()
        assert page.eval("window.hacked") is None
        client.redis.xadd(RedisKeys(settings.fleet).dead_letters, {"queue": "q", "reason": EVIL, "bytes": 7})
        page.wait_for("document.querySelectorAll('#letters .letter').length === 1")
        assert EVIL in page.text()
        assert page.eval("window.hacked") is None
        page.goto(page.wait_for("document.querySelector('#finished [data-is=result]').href"))
        assert json.loads(page.text())["generated"] == 3
        page.goto(f"{address}/task/{handle.id}.0")
        page.wait_for(f"document.body.innerText.includes({json.dumps(EVIL + '0')})")
        assert page.eval("window.hacked") is None


def test_a_review_under_way_says_how_far_it_is_and_how_many_takes_wait(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page, pictures: Path
) -> None:
    launch("--workers", "1", fake_slots=4).wait_for(Event.MODELS_LOADED)
    begun, may_go_on = Flag(), Flag()

    def hear(_: ReviewRequest) -> ReviewAnswer:
        begun.set()
        assert may_go_on.wait(60)
        return GOOD

    with stub_reviewer(settings, hear), running_flower(settings, tmp_path) as address:
        page.look(1280, 900, "light")
        page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
        batch = client.submit(write_batch(tmp_path, [5]), review="all")
        assert begun.wait(60)
        page.wait_for("document.querySelector('#batches-note').textContent.endsWith('takes wait in queues')")
        shown = "document.querySelector('#batches [data-is=review]').textContent"
        page.wait_for(f"{shown} === 'reviewing 0 of 5'")
        page.shoot(pictures / "fleet-reviewing.png")
        may_go_on.set()
        batch.wait(timeout=120)
        page.wait_for("document.querySelectorAll('#finished .batch').length === 1")
        assert page.eval("document.querySelector('#finished [data-is=review-cell]').hidden")


def test_what_was_seen_last_stays_and_is_marked_as_old_while_redis_is_away(tmp_path: Path, page: Page) -> None:
    server = RedisServer(tmp_path)
    settings = Settings(redis_url=server.url, fleet="away", out_dir=tmp_path / "out")
    try:
        with running_flower(settings, tmp_path) as address:
            page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
            page.wait_for("document.querySelector('#fleet-status').textContent === 'Live'")
            server.kill()
            page.wait_for("document.querySelector('#fleet-status').textContent === 'Offline'")
            assert "Flower cannot read the fleet's state" in page.text()
            assert page.eval("document.querySelector('#fleet-name').textContent") == "away"
            server.start()
            page.wait_for("document.querySelector('#fleet-status').textContent === 'Live'")
            assert "Flower cannot read the fleet's state" not in page.text()
    finally:
        server.kill()
