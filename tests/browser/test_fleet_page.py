"""What a person sees who watches a fleet in a browser."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from cloner.client import Client
from cloner.settings import Settings
from tests.batches import write_batch
from tests.browser.chromium import Page
from tests.chaos.servers import Server
from tests.integration.conftest import Start
from tests.watching import LOGIN, running_flower

EVIL = "<script>window.hacked = 1</script>"


def test_the_fleet_page_moves_while_a_batch_runs(
    launch: Start, client: Client, settings: Settings, tmp_path: Path, page: Page, pictures: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.4, fake_slots=2)
    fleet.wait_for("Models loaded!", 2)
    path = write_batch(tmp_path, [30, 30])
    batch = json.loads(path.read_text())
    for task in batch["tasks"]:
        task["speaker_id"] = f"{EVIL}{task['speaker_id']}"
    evil = tmp_path / f"{EVIL.replace('/', '_')}.json"
    evil.write_text(json.dumps(batch))

    with running_flower(settings, tmp_path) as address:
        page.look(1280, 900, "light")
        page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
        page.wait_for("document.querySelectorAll('.worker .pill[data-state=ready]').length === 2")
        handle = client.submit(evil)
        widths = "[...document.querySelectorAll('.batch .bar-done')].map((bar) => parseFloat(bar.style.width))[0]"
        page.wait_for(f"{widths} > 0")
        first = page.eval(widths)
        page.wait_for("document.querySelectorAll('.worker .pill[data-state=busy]').length === 2")
        page.wait_for("document.querySelector('#sum-slots').textContent === '4'")
        page.wait_for("parseFloat(document.querySelector('[data-is=speed]').textContent) > 0")
        page.wait_for("/^[0-9]+ (s|min)$/.test(document.querySelector('[data-is=left]').textContent)")
        page.wait_for("parseFloat(document.querySelector('#sum-frames').textContent) > 0")
        page.wait_for(f"{widths} > {first}")
        for (width, height), scheme in product([(1280, 900), (390, 844)], ["light", "dark"]):
            page.look(width, height, scheme)
            # Flower's pages follow the system, and nothing sticks out of a telephone.
            page.wait_for(f"document.documentElement.dataset.bsTheme === '{scheme}'")
            assert page.eval("document.documentElement.scrollWidth <= window.innerWidth")
            page.shoot(pictures / f"fleet-{width}-{scheme}.png")

        page.look(1280, 900, "light")
        handle.wait(timeout=120)
        page.wait_for("document.querySelectorAll('#finished .batch').length === 1")
        page.wait_for("document.querySelectorAll('.worker .pill[data-state=ready]').length === 2")
        assert evil.name in page.text()
        page.goto(page.wait_for("document.querySelector('#finished [data-is=result]').href"))
        assert json.loads(page.text())["generated"] == 60

        page.goto(f"{address}/tasks")
        page.wait_for("document.body.innerText.includes('cloner.speak_chunk')")
        page.shoot(pictures / "tasks.png")
        page.goto(f"{address}/task/{handle.id}.0")
        page.wait_for(f"document.body.innerText.includes({json.dumps(EVIL + '0')})")
        assert f"batch {handle.id}, chunk 0" in page.text()
        assert "Sentence" not in page.text()
        page.shoot(pictures / "task.png")
        assert page.eval("window.hacked") is None
        # Flower's own pages lead to ours.
        page.eval("[...document.querySelectorAll('nav a')].find((link) => link.textContent === 'Fleet').click()")
        page.wait_for("location.pathname === '/fleet'")


def test_a_wrong_password_shows_nothing(settings: Settings, tmp_path: Path, page: Page) -> None:
    with running_flower(settings, tmp_path) as address:
        page.goto(f"{address.replace('//', '//anna:wrong@')}/fleet")
        assert page.eval("document.getElementById('fleet')") is None


def test_what_was_seen_last_stays_and_is_marked_as_old_while_redis_is_away(tmp_path: Path, page: Page) -> None:
    server = Server(tmp_path)
    settings = Settings(redis_url=server.url, fleet="away", out_dir=tmp_path / "out")
    try:
        with running_flower(settings, tmp_path) as address:
            page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
            page.wait_for("document.querySelector('#fleet-status').textContent === 'Live'")
            server.kill()
            page.wait_for("document.querySelector('#fleet-status').textContent === 'No news'")
            assert "Flower cannot look at the fleet" in page.text()
            assert page.eval("document.querySelector('#fleet-name').textContent") == "away"
            server.start()
            page.wait_for("document.querySelector('#fleet-status').textContent === 'Live'")
            assert "Flower cannot look at the fleet" not in page.text()
    finally:
        server.kill()
