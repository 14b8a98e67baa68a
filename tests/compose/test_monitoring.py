"""The files for Prometheus and Grafana, without running them."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import yaml

from tests.support.compose import DASHBOARD, ROOT, docker

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROVISIONING = ROOT / "ops/monitoring/grafana/provisioning"


def test_each_alert_comes_when_it_should_and_not_before() -> None:
    image = COMPOSE["services"]["prometheus"]["image"]
    run = ["run", "--rm", "--volume", f"{ROOT}:/source:ro", "--workdir", "/source", "--entrypoint", "promtool", image]
    assert "SUCCESS" in docker(*run, "test", "rules", "tests/compose/alerts_test.yml")
    assert "SUCCESS" in docker(*run, "check", "config", "ops/monitoring/prometheus.yml")


def test_prometheus_asks_the_exporter_where_it_listens() -> None:
    config = yaml.safe_load((ROOT / "ops/monitoring/prometheus.yml").read_text())
    (targets,) = [job["static_configs"] for job in config["scrape_configs"]]
    assert targets == [{"targets": ["metrics:9464"]}]
    assert COMPOSE["services"]["metrics"]["command"] == ["cloner", "metrics", "--host", "0.0.0.0"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    asked = [DASHBOARD["panels"], *(panel["targets"] for panel in DASHBOARD["panels"])]
    assert {part["datasource"]["uid"] for parts in asked for part in parts} == {source["uid"]}
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/cloner.yml").read_text())["providers"]
    mounted = [volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert ["./ops/monitoring/grafana/dashboards", provider["options"]["path"]] in mounted
    assert ["./ops/monitoring/grafana/provisioning", "/etc/grafana/provisioning"] in mounted


def test_the_dashboards_panels_have_places_and_names_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert DASHBOARD["uid"]
    assert json.dumps(DASHBOARD).isascii()
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels), key
    assert {panel["type"] for panel in panels} <= {"stat", "timeseries"}
    for panel in panels:
        assert 0 <= panel["gridPos"]["x"] <= panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]
    for one, other in combinations(panels, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (apart or above)
