"""Flower's own pages under the Content-Security-Policy that is sent with them: nothing that they need is refused."""

from __future__ import annotations

from pathlib import Path

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.chromium import Page
from tests.support.processes import Launch
from tests.support.web_services import LOGIN, running_flower

READY = {
    "workers": "document.querySelector('#workers-table tbody').innerText.includes('cpu.0@box')",
    "worker/cpu.0@box": "document.body.innerText.includes('cpu.0@box')",
    "tasks": "document.querySelector('#tasks-table tbody').innerText.includes('SUCCESS')",
    "broker": "document.body.innerText.includes('cpu')",
    "fleet": "document.querySelectorAll('#finished .batch').length === 1",
}
"""A script for each page, which becomes true when the page's own scripts have filled it."""


def test_all_pages_work_and_what_is_put_into_them_does_not_run(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, page: Page
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    with running_flower(settings, tmp_path) as address:
        page.on_each_page(
            "window.refused = [];"
            "addEventListener('securitypolicyviolation', e => refused.push(`${e.violatedDirective} ${e.blockedURI}`))"
        )
        page.goto(f"{address.replace('//', f'//{LOGIN}@')}/fleet")
        page.wait_for("document.querySelectorAll('.worker').length === 1")
        batch = client.submit(write_batch(tmp_path, [2]))
        batch.wait(timeout=100)
        for path, script in {**READY, f"fleet/batch/{batch.id}": "document.querySelector('.track')"}.items():
            page.goto(f"{address}/{path}")
            page.wait_for(f"!!({script})")
            assert page.eval("refused") == [], path
        # A bar of the report has its width, and the workers' page its setting.
        assert page.eval("[...document.querySelectorAll('.fill.good')].some(bar => bar.offsetWidth > 0)")
        page.goto(f"{address}/workers")
        assert page.eval("autorefresh") == 1
        page.eval("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))")
        page.wait_for("refused.length === 1")
        assert page.eval("[refused[0], window.hacked ?? null]") == ["script-src-elem inline", None]
