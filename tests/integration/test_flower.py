"""Flower's pages for a real fleet, without a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import Launch, environment, run_cloner
from tests.support.web_services import LOGIN, get, post, running_flower

pytestmark = pytest.mark.slow


def test_flower_shows_the_fleet_to_who_logs_in(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_slots=4)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [3, 2]))
    assert batch.wait(timeout=60).generated == 5
    with running_flower(settings, tmp_path) as flower:
        for path in ("/fleet", "/fleet/now", f"/fleet/batch/{batch.id}", f"/fleet/batch/{batch.id}.json"):
            assert get(flower + path)[0] == 200
            assert [get(flower + path, login)[0] for login in (None, "anna:wrong", "s3cret")] == [401, 401, 401]
        # Its first page is the fleet page.
        assert 'id="fleet"' in get(f"{flower}/fleet")[1]
        assert get(f"{flower}/")[0] == 200
        assert 'id="fleet"' in get(f"{flower}/")[1]
        assert get(f"{flower}/", None)[0] == 401
        # Flower's other pages link to it, and it has their layout.
        for path in ("/fleet", "/tasks"):
            assert 'href="/fleet"' in get(flower + path)[1]
        eventually(lambda: json.loads(get(f"{flower}/fleet/now")[1])["workers"][0]["memory_bytes"] > 0)
        now = json.loads(get(f"{flower}/fleet/now")[1])
        (worker,), (seen,) = now["workers"], now["batches"]
        assert (worker["state"], worker["slots"], worker["slots_used"], worker["loads"]) == ("ready", 4, 0, 1)
        assert (seen["id"], seen["source"], seen["state"], seen["generated"]) == (batch.id, "batch.json", "done", 5)
        assert json.loads(get(f"{flower}/fleet/batch/{batch.id}.json")[1])["generated"] == 5
        report = get(f"{flower}/fleet/batch/{batch.id}")[1]
        assert "All 5 segments generated." in report
        assert f".cloner/{batch.id}/report.html" in report
        status, nothing = get(f"{flower}/fleet/batch/20260101-000000-aaaaaa")
        assert (status, "batch 20260101-000000-aaaaaa has no result" in nothing) == (404, True)
        assert get(f"{flower}/fleet/batch/20260101-000000-aaaaaa.json")[0] == 404
        for name in ("fleet.js", "fleet.css"):
            assert get(f"{flower}/fleet/files/{name}")[0] == 200
        assert get(f"{flower}/fleet/files/../pages.py")[0] in (403, 404)


STUCK = """
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock
from cloner.monitoring.flower import server
from cloner.settings import load_settings

def start(_):
    ThreadPoolExecutor().submit(threading.Event().wait)

server.make_app = lambda settings: Mock(start=start)
server.serve(load_settings())
print("ended")
"""
"""Flower with a thread that waits for an unreachable Redis for ever."""


def test_flower_ends_though_a_thread_of_its_own_waits_for_redis(settings: Settings, tmp_path: Path) -> None:
    env = {**os.environ, **environment(settings), "FLOWER_BASIC_AUTH": LOGIN}
    ended = subprocess.run([sys.executable, "-c", STUCK], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr


CONFIGURATION = "import pathlib\npathlib.Path({door!r}).touch()\n"


def test_a_configuration_file_is_read_only_if_it_is_named(settings: Settings, tmp_path: Path) -> None:
    """Flower's own default is a flowerconfig.py of the current folder, which it runs."""
    door, named = tmp_path / "door", tmp_path / "named"
    (tmp_path / "flowerconfig.py").write_text(CONFIGURATION.format(door=str(door)))
    (tmp_path / "mine.py").write_text(CONFIGURATION.format(door=str(named)))
    with running_flower(settings, tmp_path):
        assert not door.exists()
    with running_flower(settings, tmp_path, FLOWER_CONF="mine.py"):
        assert named.exists()
        assert not door.exists()


def test_flower_listens_on_this_machine_alone_and_logins_may_have_any_letters(
    settings: Settings, tmp_path: Path
) -> None:
    login = "jürgen:пароль"
    with running_flower(settings, tmp_path, FLOWER_BASIC_AUTH=f"{LOGIN},{login}") as flower:
        port = int(flower.rpartition(":")[2])
        listening = [found.laddr for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
        assert [address for address in listening if address and address.port == port] == [("127.0.0.1", port)]
        for path in ("/fleet", "/workers", "/api/workers"):
            assert [get(flower + path, given)[0] for given in (LOGIN, login)] == [200, 200]
            for given in ("jürgen:passwort", "änna:s3cret", "anna:s3cret€"):
                status, text = get(flower + path, given)
                assert status == 401
                assert "Traceback" not in text


def test_flower_changes_nothing_unless_it_is_allowed_to(settings: Settings, tmp_path: Path) -> None:
    for changes, status in (({}, 403), ({"FLOWER_READ_ONLY": "false"}, 404)):  # there is no such worker
        with running_flower(settings, tmp_path, **changes) as flower:
            assert post(f"{flower}/api/worker/shutdown/none") == status


@pytest.mark.parametrize("command", ["flower", "metrics"])
def test_an_address_that_is_taken_or_none_is_refused_in_one_sentence(
    settings: Settings, tmp_path: Path, command: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for host, reason in (("127.0.0.1", "Address already in use"), ("a" * 70, "label too long")):
            env = {**environment(settings), "FLOWER_BASIC_AUTH": LOGIN, "FLOWER_ADDRESS": host, "FLOWER_PORT": port}
            arguments = ["--host", host, "--port", port] if command == "metrics" else []
            ran = run_cloner(command, *arguments, cwd=tmp_path, env=env)
            (line,) = ran.stderr.splitlines()
            assert ran.returncode == 2
            assert f"cannot listen on {host}:{port} (" in line
            assert reason in line
            assert ": give another " in line


def test_flower_does_not_start_without_a_login(settings: Settings, tmp_path: Path) -> None:
    for login in ("", "anna", "anna:", ":secret", f"{LOGIN},ben"):
        env = {**os.environ, "CLONER_REDIS_URL": str(settings.redis_url), "FLOWER_BASIC_AUTH": login}
        ran = run_cloner("flower", cwd=tmp_path, env=env)
        assert ran.returncode == 2
        assert ran.stderr.startswith("FLOWER_BASIC_AUTH is not set, or not user:password: give one")
