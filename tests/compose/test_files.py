"""The compose files and .env.example, checked without starting containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloner.settings import Settings
from tests.support.compose import (
    CLIENT_IMAGE,
    CPU_IMAGE,
    ON_CPU,
    REVIEWER_IMAGE,
    ROOT,
    SHIPPED,
    WORKER_IMAGE,
    WORKERS,
    env_recipe,
)

SERVICES = {"redis", "out", "fleet", "collector", "flower"}
TOOLS = {"checkpoint", "client", "recogniser"}
MONITORING = {"metrics", "prometheus", "grafana"}
REVIEW = {"review"}
USERS = {"redis": "valkey", "out": "root", "prometheus": "nobody", "grafana": "472"}


def configured(folder: Path, *files: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` in a folder with the shipped files and that folder's .env."""
    named = [part for file in files for part in ("-f", str(ROOT / file))]
    command = ["docker", "compose", "--project-directory", str(folder), *named, "--profile", "*", "config"]
    return subprocess.run(
        [*command, "--format", "json"], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's folder, with a .env made by the commands in .env.example."""
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    subprocess.run(["sh", "-c", env_recipe()], cwd=tmp_path, check=True)
    return tmp_path


def services(folder: Path, *files: str, **env: str) -> dict[str, dict[str, Any]]:
    ran = configured(folder, *files, **env)
    assert (ran.returncode, ran.stderr) == (0, "")
    found: dict[str, dict[str, Any]] = json.loads(ran.stdout)["services"]
    return found


def test_the_dockerfile_is_clean() -> None:
    linted = subprocess.run(["hadolint", "ops/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_readme_makes_env_in_the_same_way() -> None:
    assert re.sub("^   ", "", env_recipe(), flags=re.MULTILINE) in (ROOT / "README.md").read_text()


def test_env_can_say_once_what_each_command_is_to_mean(folder: Path) -> None:
    for file in ON_CPU:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text((ROOT / file).read_text())
    listed = ["docker", "compose", "config", "--images"]
    plain = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    knobs = re.findall(r"^#(COMPOSE_.*\n)", (folder / ".env.example").read_text(), re.MULTILINE)
    (folder / ".env").write_text((folder / ".env").read_text() + "".join(knobs))
    images = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    assert WORKER_IMAGE in plain
    assert CPU_IMAGE in images
    assert {image.partition(":")[0] for image in set(images) - set(plain)} == {
        "cloner-reviewer",
        "cloner-worker-cpu",
        "grafana/grafana",
        "prom/prometheus",
    }


def test_a_secret_of_ones_own_is_made_and_no_other_user_can_read_it(folder: Path) -> None:
    made = folder / ".env"
    assert made.stat().st_mode & 0o077 == 0
    passwords = re.findall(r"^(?:REDIS|FLOWER|GRAFANA)_PASSWORD=([0-9a-f]{24,})$", made.read_text(), re.MULTILINE)
    assert len(set(passwords)) == 3


def test_only_what_downloads_a_checkpoint_has_the_hubs_token(folder: Path) -> None:
    found = services(folder, *SHIPPED, HF_TOKEN="hf_secret")
    assert [name for name, service in found.items() if "hf_secret" in json.dumps(service)] == ["checkpoint"]


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "FLOWER_PASSWORD"])
def test_without_a_password_nothing_starts_and_the_error_says_what_to_do(folder: Path, name: str) -> None:
    ran = configured(folder, *SHIPPED, **{name: ""})
    assert ran.returncode != 0
    assert f"required variable {name} is missing a value: make .env as .env.example says" in ran.stderr


def test_every_service_is_locked_down(folder: Path) -> None:
    found = services(folder, *SHIPPED)
    assert {name for name, service in found.items() if "profiles" not in service} == SERVICES
    assert {name for name, service in found.items() if service.get("profiles") == ["tools"]} == TOOLS
    assert {name for name, service in found.items() if service.get("profiles") == ["monitoring"]} == MONITORING
    assert {name for name, service in found.items() if service.get("profiles") == ["review"]} == REVIEW
    for name, service in found.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service.get("cap_add", []) == (["CHOWN"] if name == "out" else []), name
        assert "privileged" not in service, name
        assert service["user"] == USERS.get(name, f"{os.getuid()}:{os.getgid()}"), name


def test_only_the_fleet_may_use_all_memory_and_redis_keeps_room_beside_its_data(folder: Path) -> None:
    found = services(folder, *SHIPPED)
    limits = {name: int(service.get("mem_limit", 0)) for name, service in found.items()}
    assert {name for name, limit in limits.items() if not limit} == {"fleet"}
    (size,) = re.findall(r"^ *maxmemory (\d+)gb$", found["redis"]["command"][-1], re.MULTILINE)
    assert 2 * int(size) * 1024**3 <= limits["redis"]
    assert all(service["pids_limit"] > 0 for service in found.values())


def test_every_image_has_an_exact_version_and_what_runs_has_a_health_check(folder: Path) -> None:
    found = services(folder, *SHIPPED)
    named = [service["image"] for service in found.values() if "build" not in service]
    bases = re.findall(r"^FROM (python\S*)", (ROOT / "ops/Dockerfile").read_text(), re.MULTILINE)
    assert len(bases) == 1
    for image in (*named, *bases):
        assert re.fullmatch(r"[\w./]+:v?\d+\.\d+\.\d+(-[\w-]+)?", image), image
    for name in SERVICES | MONITORING | REVIEW - {"out"}:
        assert name == "out" or found[name]["healthcheck"]["test"], name


def test_our_images_have_the_version_as_their_tag(folder: Path) -> None:
    found = services(folder, *SHIPPED)
    ours = {service["image"] for service in found.values() if "build" in service}
    assert ours == {CLIENT_IMAGE, WORKER_IMAGE, REVIEWER_IMAGE}


def test_flower_listens_to_its_network_and_its_name_for_the_host_is_not_one_of_its_settings(folder: Path) -> None:
    environment = services(folder, *SHIPPED)["flower"]["environment"]
    assert environment["FLOWER_ADDRESS"] == "0.0.0.0"
    assert "FLOWER_ADDRESS" not in (folder / ".env").read_text()


def test_the_fleet_has_all_gpus_and_time_to_stop(folder: Path) -> None:
    fleet = services(folder, *SHIPPED)["fleet"]
    (device,) = fleet["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert "gpu" in device["capabilities"]
    stop_s = Settings.model_fields["stop_s"].default
    assert fleet["stop_grace_period"] == "1m0s"
    assert stop_s + 10 < 60
    assert {volume["target"] for volume in fleet["volumes"]} == {
        "/cloner/checkpoints",
        "/cloner/kernels",
        "/cloner/out",
    }


def test_kernels_are_kept_in_a_volume_in_a_folder_of_the_user_alone(folder: Path) -> None:
    fleet = services(folder, *SHIPPED, CLONER_UID="1234")["fleet"]
    (volume,) = [volume for volume in fleet["volumes"] if volume["target"] == "/cloner/kernels"]
    assert (volume["type"], volume["source"], volume.get("read_only", False)) == ("volume", "kernels", False)
    assert fleet["environment"]["CLONER_KERNEL_CACHE"] == "/cloner/kernels/1234"


def test_reviewers_have_no_gpu_and_no_outputs_and_a_box_name_of_their_own(folder: Path) -> None:
    review = services(folder, *SHIPPED, CLONER_BOX="first", CLONER_RECOGNISER="small", REVIEWERS="3")["review"]
    assert "deploy" not in review
    assert [(volume["target"], volume["read_only"]) for volume in review["volumes"]] == [("/cloner/recognisers", True)]
    assert review["environment"]["CLONER_BOX"] == "first-review"
    assert review["environment"]["CLONER_RECOGNISER"] == "small"
    assert review["environment"]["CLONER_RECOGNISER_CACHE"] == "/cloner/recognisers"
    assert review["command"] == ["launcher", "review", "--reviewers", "3"]
    assert set(review["depends_on"]) == {"redis"}


def test_nothing_is_published_beyond_this_host(folder: Path) -> None:
    ports = [port for service in services(folder, *SHIPPED).values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert {port["target"] for port in ports} == {6379, 5555, 3000}


def test_on_a_cpu_no_gpu_is_asked_for_and_the_image_is_another(folder: Path) -> None:
    found = services(folder, *ON_CPU)
    assert set(found) == SERVICES | TOOLS | MONITORING | REVIEW
    assert "deploy" not in found["fleet"]
    assert {name for name, service in found.items() if service["image"] == CPU_IMAGE} == {
        "fleet",
        "checkpoint",
    }


BOX = {"REDIS_HOST": "10.0.0.5", "CLONER_BOX": "second"}


@pytest.mark.parametrize("files", [(*SHIPPED, WORKERS), (*ON_CPU, WORKERS)], ids=["gpu", "cpu"])
def test_a_box_of_workers_has_reviewers_if_asked_and_publishes_nothing(folder: Path, files: tuple[str, ...]) -> None:
    variables = {"CLONER_RECOGNISER": "small", "REVIEWERS": "3", "REDIS_PASSWORD": "secret"}
    found = services(folder, *files, **BOX, **variables)
    whole = services(folder, *files[:-1], **variables, CLONER_BOX="second")
    assert set(found) == {"out", "fleet", "checkpoint", "review", "recogniser"}
    assert {name for name, service in found.items() if "profiles" not in service} == {"out", "fleet"}
    assert [service["ports"] for service in found.values() if "ports" in service] == []
    needed = {"fleet": {"out"}, "review": set[str]()}
    names = {"fleet": "second", "review": "second-review"}
    for name, service in found.items():
        assert {*service.get("depends_on", ())} == needed.get(name, set()), name
        expected = dict(whole[name])
        if name in needed:
            url = "redis://:secret@10.0.0.5:6379/0"
            expected["environment"] = {**whole[name]["environment"], "CLONER_REDIS_URL": url}
            assert service["environment"]["CLONER_BOX"] == names[name]
        assert _without_needs(service) == _without_needs(expected), name


def _without_needs(service: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in service.items() if key != "depends_on"}


@pytest.mark.parametrize("name", BOX)
def test_a_box_of_workers_needs_a_name_and_the_address_of_redis(folder: Path, name: str) -> None:
    ran = configured(folder, *SHIPPED, WORKERS, **{**BOX, name: ""})
    assert ran.returncode != 0
    assert f"required variable {name} is missing a value: give " in ran.stderr


def test_redis_is_published_elsewhere_only_where_that_is_asked_for(folder: Path) -> None:
    (port,) = services(folder, *SHIPPED, REDIS_ADDRESS="10.0.0.5")["redis"]["ports"]
    assert (port["host_ip"], port["published"]) == ("10.0.0.5", "6379")


def test_every_setting_is_a_knob(folder: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    found = services(folder, *SHIPPED)
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or f"CLONER_{name}".upper())
        if name == "redis_url":
            continue  # made of the password
        if name == "kernel_cache":
            continue  # the volume's folder
        if name == "recogniser_cache":
            continue  # the volume's folder
        if name == "recogniser":
            assert variable in found["review"]["environment"]
            assert f"#{variable}=" in example
            continue  # of reviewers, and of clients with the extra `asr`, which is in no image
        assert re.search(f"^#{variable}=", example, re.MULTILINE), variable
        if name == "references_dir":
            assert variable in found["client"]["environment"]
            continue  # a client's
        for service in ("fleet", "collector", "client", "flower", "metrics"):
            assert variable in found[service]["environment"], (service, variable)
        # The number of slots depends on the device, and the example is for a GPU.
        default = Settings().batched_slots("cuda:0") if name == "slots" else field.default
        if name not in {"out_dir", "gpus"}:
            assert f"#{variable}={default}\n" in example


def test_no_knob_is_left_out_of_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    text = "".join((ROOT / file).read_text() for file in (*ON_CPU, WORKERS))
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | set(re.findall(r"^ +(\w+):$", text, re.MULTILINE))
    knobs = {name for name in used if name.isupper()}
    assert "REDIS_PASSWORD" in knobs
    assert "HF_TOKEN" in knobs
    # Compose itself reads the last two.
    assert knobs | {"COMPOSE_FILE", "COMPOSE_PROFILES"} == set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
