"""A real Prometheus, scraping the real exporter over a real fleet, with the rules and the dashboard that we ship."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from cloner.cards import Cards, CardUse
from cloner.client import Client
from cloner.settings import Settings
from tests.batches import write_batch
from tests.integration.conftest import Start, eventually
from tests.watching import free_port, get, running_exporter

MONITORING = Path(__file__).parents[2] / "ops/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/dashboards/cloner.json").read_text())
GPU = "NVIDIA GeForce RTX 4090"


@contextmanager
def running_prometheus(exporter: str, folder: Path) -> Iterator[str]:
    """With our own configuration, but for the exporter's address and the times: a test has no hour."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [exporter.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)
    try:
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: process.poll() is not None or get(f"{address}/-/ready")[0] == 200)
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait()


def test_every_query_of_the_dashboard_has_an_answer_and_a_worker_that_is_gone_is_an_alert(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    (settings.out_dir / "audio/2.wav").mkdir(parents=True)  # so that one segment fails
    fleet = launch("--workers", "2", "--gpu", f"{GPU}:24", fake_segment_s=1.0, heartbeat_s=0.2)
    fleet.wait_for("Models loaded!", 2)
    # A driver would have to be asked: what the launcher reads of a card is another test's.
    Cards(client.redis, client.names).write([CardUse("box", "gpu0", GPU, 20 * 1024**3, 24 * 1024**3, 0.9)])
    with running_exporter(settings, tmp_path) as exporter, running_prometheus(exporter, tmp_path) as prometheus:

        def ask(query: str) -> list[str]:
            _, text = get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
            answer = json.loads(text)
            assert answer["status"] == "success", (query, answer)
            return [sample["value"][1] for sample in answer["data"]["result"]]

        handle = client.submit(write_batch(tmp_path, [20, 20]))
        eventually(lambda: ask("sum(cloner_worker_slots_used)") == ["2"])
        queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
        assert len(queries) > 15
        for query in queries:
            eventually(partial(_has_numbers, ask, query))
        assert handle.wait(timeout=120).failed == 1
        eventually(lambda: ask('sum(cloner_segments_total{outcome="generated"})') == ["39"])
        eventually(lambda: ask('sum(cloner_segments_total{outcome="failed"})') == ["1"])
        eventually(lambda: ask('sum(cloner_chunks_total{outcome="finished"})') == ["2"])
        eventually(lambda: bool(ask("sum(rate(cloner_audio_seconds_total[1m])) > 0")))
        for metric in ("cloner_chunk_queue_seconds_count", "cloner_loads_total"):
            assert ask(f"sum({metric})") == ["2"]

        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=get(f"{exporter}/metrics")[1], capture_output=True, text=True
        )
        assert (checked.returncode, checked.stderr) == (0, "")

        # A worker falls silent: its alert is on its way.
        (gone,) = [worker.name for worker in client.fleet() if worker.index == 1]
        fleet.stop(signal.SIGKILL)

        def is_alarming() -> bool:
            client.redis.zadd(client.names.workers, {gone: 1.0})  # it may have a last word of its own
            return ask(f'ALERTS{{alertname="WorkerGone", worker="{gone}"}}') == ["1"]

        eventually(is_alarming)


def _has_numbers(ask: Callable[[str], list[str]], query: str) -> bool:
    values = ask(query)
    return bool(values) and "NaN" not in values


def test_the_rules_and_the_configuration_are_well_formed() -> None:
    for what, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        checked = subprocess.run(["promtool", "check", what, str(MONITORING / name)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
