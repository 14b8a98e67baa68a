"""What can be said of the files without starting anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloner.settings import Settings
from tests.compose.conftest import ON_CPU, ROOT, SHIPPED, recipe

SERVICES = {"redis", "out", "fleet", "collector", "flower", "checkpoint", "client"}


def configured(folder: Path, *files: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` in a folder with the shipped files and that folder's .env."""
    named = [part for file in files for part in ("-f", str(ROOT / file))]
    command = ["docker", "compose", "--project-directory", str(folder), *named, "--profile", "*", "config"]
    return subprocess.run(
        [*command, "--format", "json"], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's folder with a .env made as .env.example says."""
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    subprocess.run(["sh", "-c", recipe()], cwd=tmp_path, check=True)
    return tmp_path


def services(folder: Path, *files: str) -> dict[str, dict[str, Any]]:
    told = configured(folder, *files)
    assert (told.returncode, told.stderr) == (0, "")
    found: dict[str, dict[str, Any]] = json.loads(told.stdout)["services"]
    return found


def test_the_dockerfile_is_clean() -> None:
    linted = subprocess.run(["hadolint", "ops/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_a_secret_of_ones_own_is_made_and_no_other_user_can_read_it(folder: Path) -> None:
    made = folder / ".env"
    assert made.stat().st_mode & 0o077 == 0
    passwords = re.findall(r"^(?:REDIS|FLOWER)_PASSWORD=([0-9a-f]{24,})$", made.read_text(), re.MULTILINE)
    assert len(set(passwords)) == 2


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "FLOWER_PASSWORD"])
def test_without_a_password_nothing_starts_and_the_error_says_what_to_do(folder: Path, name: str) -> None:
    told = configured(folder, *SHIPPED, **{name: ""})
    assert told.returncode != 0
    assert f"required variable {name} is missing a value: make .env as .env.example says" in told.stderr


def test_every_service_is_locked_down(folder: Path) -> None:
    found = services(folder, *SHIPPED)
    assert set(found) == SERVICES
    for name, service in found.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service.get("cap_add", []) == (["CHOWN"] if name == "out" else []), name
        assert "privileged" not in service, name
        user = f"{os.getuid()}:{os.getgid()}"
        assert service["user"] == {"redis": "valkey", "out": "root"}.get(name, user), name


def test_the_fleet_has_all_gpus_and_time_to_stop(folder: Path) -> None:
    fleet = services(folder, *SHIPPED)["fleet"]
    (device,) = fleet["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert "gpu" in device["capabilities"]
    stop_s = Settings.model_fields["stop_s"].default
    assert fleet["stop_grace_period"] == "1m0s"
    assert stop_s + 10 < 60
    assert {volume["target"] for volume in fleet["volumes"]} == {"/cloner/checkpoints", "/cloner/out"}


def test_nothing_is_published_beyond_this_host(folder: Path) -> None:
    ports = [port for service in services(folder, *SHIPPED).values() for port in service.get("ports", [])]
    assert {(port["host_ip"], port["target"]) for port in ports} == {("127.0.0.1", 6379), ("127.0.0.1", 5555)}


def test_on_a_cpu_no_gpu_is_asked_for_and_the_image_is_another(folder: Path) -> None:
    found = services(folder, *ON_CPU)
    assert set(found) == SERVICES
    assert "deploy" not in found["fleet"]
    assert {name for name, service in found.items() if service["image"] == "cloner-worker-cpu"} == {
        "fleet",
        "checkpoint",
    }


def test_every_setting_is_a_knob(folder: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    found = services(folder, *SHIPPED)
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or f"CLONER_{name}".upper())
        if name == "redis_url":
            continue  # made of the password
        assert re.search(f"^#{variable}=", example, re.MULTILINE), variable
        if name == "references_dir":
            assert variable in found["client"]["environment"]
            continue  # a client's
        for service in ("fleet", "collector", "client"):
            assert variable in found[service]["environment"], (service, variable)
        if name != "out_dir":
            assert f"#{variable}={field.default}\n" in example


def test_no_knob_is_left_out_of_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    text = "".join((ROOT / file).read_text() for file in ON_CPU)
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | set(re.findall(r"^ +(\w+):$", text, re.MULTILINE))
    knobs = {name for name in used if name.isupper()}
    assert "REDIS_PASSWORD" in knobs
    assert "HF_TOKEN" in knobs
    assert knobs == set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
