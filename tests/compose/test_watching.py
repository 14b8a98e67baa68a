"""Monitoring a fleet in containers: Flower in a browser, Prometheus with the alert rules, Grafana's dashboard, JSON
logs. A substitute for NVML reports the GPUs, the fake engine generates the audio."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cloner.client.client import BatchHandle, Client
from cloner.protocol.results import ErrorRateResult
from tests.support.batches import write_batch
from tests.support.chromium import Page, browser
from tests.support.compose import DASHBOARD, ROOT, SOON, TIMEOUT_S, UID, Box, docker, eventually
from tests.support.web_services import get

FLOWER = "http://127.0.0.1:15555"
GRAFANA = "http://127.0.0.1:13000"
PICTURES = os.environ.get("CLONER_PICTURES")
"""The folder in which screenshots are kept."""


@pytest.fixture(scope="module")
def box(make_box: Callable[..., Box]) -> Box:
    box = make_box(
        "docker-compose.yml",
        SOON,
        "tests/compose/cards.yml",
        CLONER_ENGINE="fake",
        CLONER_WORKERS_PER_GPU="1",
        CLONER_FAKE_SEGMENT_S="1.6",
        CLONER_FAKE_SLOTS="2",
        CLONER_LOG_FORMAT="json",
        COMPOSE_PROFILES="monitoring",
    )
    box.up()
    return box


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as page:
        yield page


def submit(box: Box, folder: Path, outputs: str) -> BatchHandle:
    """Thirty texts of each of two speakers."""
    return box.client().submit(write_batch(folder, [30, 30], outputs=outputs))


def submit_with_one_that_fails(box: Box, folder: Path, outputs: str) -> BatchHandle:
    """Make the third segment fail: a folder is at its output's path."""
    (box.out / "batch" / outputs / "2.wav").mkdir(parents=True)
    for made in (box.out / "batch", box.out / "batch" / outputs):
        os.chown(made, UID, UID)
    return submit(box, folder, outputs)


def test_flower_shows_the_fleet_moving_and_whose_texts_a_task_has(box: Box, page: Page, tmp_path: Path) -> None:
    pictures = Path(PICTURES or tmp_path)
    page.look(1280, 900, "light")
    page.goto(f"{FLOWER.replace('//', f'//cloner:{box.password}@')}/fleet")
    page.wait_for("document.querySelectorAll('.worker .pill[data-state=ready]').length === 2")
    cards = page.text()
    assert "NVIDIA GeForce RTX 4090 (cuda:0)" in cards
    assert "NVIDIA GeForce RTX 4090 (cuda:1)" in cards
    page.wait_for("document.body.innerText.includes('23.6 of 24 GB')")
    page.wait_for("document.body.innerText.includes('87%')")

    batch = submit(box, tmp_path, "seen")
    widths = "[...document.querySelectorAll('.batch .bar-done')].map((bar) => parseFloat(bar.style.width))[0]"
    page.wait_for(f"{widths} > 0")
    first = page.eval(widths)
    page.wait_for("document.querySelectorAll('.worker .pill[data-state=busy]').length === 2")
    page.wait_for("document.querySelector('#sum-slots').textContent === '4'")
    page.wait_for("parseFloat(document.querySelector('[data-is=speed]').textContent) > 0")
    page.wait_for("/^[0-9]+ (s|min)$/.test(document.querySelector('[data-is=left]').textContent)")
    page.wait_for("parseFloat(document.querySelector('#sum-frames').textContent) > 0")
    page.wait_for(f"{widths} > {first}")
    _take_pictures(page, pictures, "fleet")
    assert batch.wait(timeout=TIMEOUT_S).generated == 60
    page.wait_for("document.querySelectorAll('#finished .batch').length === 1")
    page.wait_for("document.querySelectorAll('.worker .pill[data-state=ready]').length === 2")
    page.goto(page.wait_for("document.querySelector('#finished [data-is=report]').href"))
    page.wait_for("document.body.innerText.includes('All 60 segments generated.')")
    _take_pictures(page, pictures, "report")

    page.goto(f"{FLOWER}/tasks")
    page.wait_for("document.body.innerText.includes('cloner.speak_chunk')")
    assert f"(speakers [1], 30 texts, chunk 1 of batch {batch.id})" in page.text()
    assert "Sentence" not in page.text()
    _take_pictures(page, pictures, "tasks")
    page.goto(f"{FLOWER}/task/{batch.id}.0")
    page.wait_for(f"document.body.innerText.includes('(speakers [0], 30 texts, chunk 0 of batch {batch.id})')")
    assert "Sentence" not in page.text()
    _take_pictures(page, pictures, "task")
    page.goto(f"{FLOWER}/workers")
    page.wait_for("document.body.innerText.includes('@box')")
    _take_pictures(page, pictures, "workers")
    # Flower's own pages link to the fleet page.
    page.eval("[...document.querySelectorAll('nav a')].find((link) => link.textContent === 'Fleet').click()")
    page.wait_for("location.pathname === '/fleet'")


def _take_pictures(page: Page, folder: Path, name: str) -> None:
    """Screenshots at desktop and phone width, in light and dark; Flower's pages follow the system's scheme."""
    for (width, height), scheme in product([(1280, 900), (390, 844)], ["light", "dark"]):
        page.look(width, height, scheme)
        page.wait_for(f"document.documentElement.dataset.bsTheme === '{scheme}'")
        page.shoot(folder / f"{name}-{width}-{scheme}.png")
        if name == "fleet":
            assert page.eval("document.documentElement.scrollWidth <= window.innerWidth"), (width, scheme)
    page.look(1280, 900, "light")


def test_flower_lets_nobody_in_without_the_password(box: Box) -> None:
    for path in ("/fleet", "/fleet/now", "/workers", "/tasks"):
        assert get(FLOWER + path, f"cloner:{box.password}")[0] == 200
        for login in (None, "cloner:wrong", f"somebody:{box.password}"):
            assert get(FLOWER + path, login)[0] == 401
    # A browser of its own: the other tests' browser has logged in.
    with browser() as page:
        page.goto(f"{FLOWER.replace('//', '//cloner:wrong@')}/fleet")
        assert page.eval("document.getElementById('fleet')") is None


def test_prometheus_own_parser_finds_no_fault_with_the_metrics(box: Box) -> None:
    _, metrics = get(f"{box.address('metrics', 9464)}/metrics")
    names = set(re.findall(r"\bcloner_\w+", (ROOT / "ops/monitoring/alerts.yml").read_text()))
    assert len(names) > 5
    assert {name for name in names if f"\n{name}{{" not in metrics and f"\n{name} " not in metrics} == set()
    assert docker("exec", "-i", box.inspect("prometheus")["Id"], "promtool", "check", "metrics", text=metrics) == ""


def test_grafana_has_its_files_and_does_not_start_without_a_password(box: Box) -> None:
    # A container that serves them, as Grafana's user.
    for name in ("datasources/prometheus.yml", "dashboards/cloner.yml"):
        served = get(f"{GRAFANA}/grafana/provisioning/{name}")
        assert served == (200, (ROOT / "ops/monitoring/grafana/provisioning" / name).read_text())
    assert json.loads(get(f"{GRAFANA}/grafana/dashboards/cloner.json")[1]) == DASHBOARD
    box.configure(GRAFANA_PASSWORD="")
    with pytest.raises(pytest.fail.Exception, match="GRAFANA_PASSWORD: is missing a value: make"):
        box.compose("run", "--rm", "grafana")
    box.configure(GRAFANA_PASSWORD=box.password)


def test_log_lines_for_programs_say_whose_they_are(box: Box, tmp_path: Path) -> None:
    batch = submit_with_one_that_fails(box, tmp_path, "logged")
    assert batch.wait(timeout=TIMEOUT_S).failed == 1
    printed = box.compose("logs", "--no-log-prefix", "fleet", "collector", "metrics")
    everything = [json.loads(line) for line in printed.splitlines()]
    assert all({"time", "level", "event"} <= line.keys() for line in everything)
    lines = [line for line in everything if line.get("batch") == batch.id]
    (failed,) = [line for line in lines if line["level"] == "warning"]
    assert (failed["worker"], failed["speaker"], failed["segment"]) == ("GPU-11111111.0@box", "0", 2)
    reported = {(line["speaker"], line["worker"]) for line in lines if line["event"].startswith("✅ Completed Speaker")}
    assert reported == {("0", "GPU-11111111.0@box"), ("1", "GPU-22222222.0@box")}


def _note_a_reviewed_batch(client: Client) -> None:
    """The fleet has no reviewer."""
    rate = ErrorRateResult(estimate=0.02, low=0.01, high=0.04, sampled=200).model_dump_json()
    batch: dict[Any, Any] = {"state": "done", "total": 1, "chunks": 1, "error_rate": rate}
    client.redis.hset(client.keys.batch("reviewed"), mapping=batch)
    client.redis.zadd(client.keys.batches, {"reviewed": client.redis.time()[0]})


def test_every_query_of_the_dashboard_has_an_answer_and_an_alert_comes(box: Box, tmp_path: Path) -> None:
    prometheus = box.address("prometheus", 9090)

    def samples(query: str) -> list[dict[str, Any]]:
        status, text = get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        assert status == 200, (query, text)
        result: list[dict[str, Any]] = json.loads(text)["data"]["result"]
        return result

    def ask(query: str) -> list[str]:
        return [sample["value"][1] for sample in samples(query)]

    def has_numbers(query: str) -> bool:
        values = ask(query)
        return bool(values) and "NaN" not in values

    _note_a_reviewed_batch(box.client())
    batch = submit_with_one_that_fails(box, tmp_path, "heard")
    eventually(lambda: ask("sum(cloner_worker_slots_used)") == ["4"])
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert len(targets) > 15
    for target in targets:
        eventually(partial(has_numbers, target["expr"]))
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(named <= sample["metric"].keys() for sample in samples(target["expr"])), target
    assert batch.wait(timeout=TIMEOUT_S).failed == 1
    eventually(lambda: ask('sum(cloner_segments_total{outcome="failed"})') in (["1"], ["2"]))  # another test's
    eventually(lambda: ask('ALERTS{alertname="GpuMemoryNearFull", card="GPU-22222222"}') == ["1"])
    assert ask('ALERTS{alertname="WorkerGone"}') == []
    box.compose("kill", "fleet")
    eventually(lambda: ask('ALERTS{alertname="WorkerGone"}') == ["1", "1"])
