"""A fleet in containers, on CPUs with a real engine, and the host's client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from redis import AuthenticationError, Redis

from tests.support.compose import CPU_IMAGE, ON_CPU, SOON, UID, WORKER_IMAGE, Box, docker, write_batch
from tests.support.model_hub import running_hub


@pytest.fixture(scope="module")
def box(make_box: Callable[..., Box]) -> Box:
    """A running box with a checkpoint of random weights."""
    box = make_box(*ON_CPU, SOON, CLONER_CHECKPOINT_DIR="checkpoints/tiny-random", FISH_MODEL_MEMORY_GB="12")
    box.compose("run", "--rm", "checkpoint", "init", "checkpoints/tiny-random", "--preset", "tiny")
    box.up()
    return box


def test_one_command_fetches_the_checkpoint_into_its_volume(box: Box) -> None:
    files = ("config.json", "model.pth", "tokenizer.tiktoken", "special_tokens.json", "codec.pth")
    with running_hub("fishaudio/openaudio-s1-mini", {name: name.encode() for name in files}, "hf_token") as port:
        box.configure(HF_TOKEN="hf_token")
        box.compose("run", "--rm", "--env", f"HF_ENDPOINT={box.host_address(port)}", "checkpoint")
    there = box.compose("exec", "fleet", "ls", "-ln", "checkpoints/openaudio-s1-mini").split()
    assert set(files) <= set(there)
    assert str(UID) in there


def test_a_batch_from_the_host_becomes_files_and_outlives_down_and_up(box: Box, tmp_path: Path) -> None:
    ran = box.cloner("submit", str(write_batch(tmp_path / "batch")), "--wait", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["total"], result["generated"], result["failed"]) == (46, 46, 0)
    assert len(result["results"]) == 46
    for output in result["results"].values():
        path = box.out / output
        assert soundfile.info(path).samplerate == 44_100
        assert (path.stat().st_uid, path.stat().st_gid) == (UID, UID)
    written = json.loads((box.out / ".cloner" / result["batch_id"] / "result.json").read_text())
    assert written == result

    keys = sorted(box.client().redis.scan_iter("cloner:main:*batch*"))
    box.compose("down")
    assert box.compose("ps", "--all", "--quiet") == ""
    box.up()
    assert sorted(box.client().redis.scan_iter("cloner:main:*batch*")) == keys
    assert box.cloner("result", result["batch_id"], folder=tmp_path).stdout == ran.stdout
    assert {worker.state for worker in box.client().fleet()} == {"ready"}


def test_a_host_without_python_has_a_client_too(box: Box) -> None:
    write_batch(box.folder / "batch")
    printed = box.compose("run", "--rm", "client", "submit", "references/batch/batch.yaml", "--wait")
    assert json.loads(printed)["generated"] == 46


def test_a_folder_that_docker_made_belongs_to_the_workers_and_others_are_left_alone(box: Box, tmp_path: Path) -> None:
    assert (box.out.stat().st_uid, box.out.stat().st_gid) == (UID, UID)
    used, private = tmp_path / "used", tmp_path / "private"
    used.mkdir()
    (used / "file").touch()
    private.mkdir(mode=0o700)
    os.chown(private, 4321, 4321)
    for folder in (used, private):
        owner = folder.stat().st_uid
        box.configure(CLONER_OUT_DIR=str(folder))
        box.compose("run", "--rm", "out")
        assert folder.stat().st_uid == owner
    box.configure(CLONER_OUT_DIR=str(box.out))


def test_the_fleet_runs_as_nobody_special_and_can_write_nowhere_else(box: Box) -> None:
    for service in ("fleet", "collector"):
        assert box.compose("exec", service, "id", "-u").strip() == str(UID)
        probe = "touch /cloner/x; touch /usr/x; touch /tmp/x && touch /cloner/out/.probe && rm /cloner/out/.probe"
        tried = box.compose("exec", service, "sh", "-c", f"({probe}) 2>&1")
        assert tried.count("Read-only file system") == 2
    privileges = box.compose("exec", "fleet", "grep", "-E", "^(NoNewPrivs|CapEff|CapBnd)", "/proc/self/status")
    assert [line.split()[1].lstrip("0") for line in privileges.splitlines()] == ["", "", "1"]
    # The collector is a service of its own.
    assert "cloner.collector" not in docker("top", str(box.inspect("fleet")["Id"]))
    assert "cloner.collector" in docker("top", str(box.inspect("collector")["Id"]))


def test_the_fleet_is_healthy_only_while_every_worker_has_its_model(box: Box) -> None:
    ready = ["exec", "fleet", "launcher", "status", "--ready"]
    assert box.compose(*ready).count("\tready\t") == len(box.client().fleet())
    client = box.client()
    (worker,) = client.fleet()
    client.redis.hset(client.keys.worker(worker.name), "state", "loading")
    try:
        with pytest.raises(pytest.fail.Exception, match=f"Not ready: {worker.name}"):
            box.compose(*ready)
    finally:
        client.redis.hset(client.keys.worker(worker.name), "state", "ready")


def test_redis_answers_nobody_without_the_password(box: Box) -> None:
    assert box.compose("port", "redis", "6379").strip() == "127.0.0.1:16379"
    for url in ("redis://127.0.0.1:16379/0", "redis://:wrong@127.0.0.1:16379/0"):
        with pytest.raises(AuthenticationError):
            Redis.from_url(url).ping()
    redis = box.client().redis
    config = redis.config_get("append*") | redis.config_get("maxmemory-policy") | redis.config_get("save")
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "always")
    assert (config["maxmemory-policy"], config["save"]) == ("noeviction", "")
    # Every user of the box may read these.
    seen = docker("top", str(box.inspect("redis")["Id"]))
    assert "valkey-server" in seen
    assert box.password not in seen


def test_the_shipped_file_asks_for_the_gpus_and_starts_unmodified(make_box: Callable[..., Box]) -> None:
    # The same image without CUDA; the stub of the runtime hook brings no GPU.
    docker("tag", CPU_IMAGE, WORKER_IMAGE)
    box = make_box("docker-compose.yml", CLONER_ENGINE="fake", REDIS_PORT="26379", FLOWER_PUBLISH="127.0.0.1:25555")
    box.up()
    (request,) = box.inspect("fleet")["HostConfig"]["DeviceRequests"]
    assert (request["Driver"], request["Count"]) == ("nvidia", -1)
    assert set(request["Capabilities"][0]) == {"gpu", "compute", "utility"}
    assert {worker.engine for worker in box.client().fleet()} == {"fake"}
