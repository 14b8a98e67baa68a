"""A Redis with a password, over TLS: everything works end to end, and nothing shows the password."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from cloner.events import Event
from cloner.settings import EngineName, Settings
from cloner.state.connection import connect
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import LoggedProcess, environment, run_cloner

pytestmark = pytest.mark.slow

PASSWORD = "t0p/s3cret@wo:rd"
QUOTED = quote(PASSWORD, safe="")
CORE = "s3cret"
"""The part that every encoding of the password contains."""

SECURITY = Path(__file__).parents[2] / "SECURITY.md"
PAGES = ("/", "/workers", "/api/workers?refresh=1", "/broker", "/tasks", "/api/tasks", "/api/queues/length", "/metrics")


class Server(NamedTuple):
    """A Redis for one test, and its address."""

    url: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def program(name: str) -> str:
    """A program's path. Skips if it is not installed; fails in CI."""
    found = shutil.which(name)
    if found:
        return found
    missing = f"{name} is not installed: apt-get install redis-server openssl"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis that accepts TLS only, with a certificate of its own, and requires a password."""
    redis, openssl = program("redis-server"), program("openssl")
    folder = tmp_path_factory.mktemp("redis")
    certificate = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "redis.key", "-out", "redis.crt"]
    subprocess.run([openssl, "req", "-x509", *key, *certificate], cwd=folder, check=True, capture_output=True)
    port = free_port()
    # As in SECURITY.md: one user, with the permissions that a fleet needs.
    (rights,) = re.findall(r"^user default off\nuser cloner .*", SECURITY.read_text(), re.MULTILINE)
    rights = rights.replace(">A-LONG-PASSWORD", f">{PASSWORD}")
    (folder / "redis.conf").write_text(
        f"port 0\ntls-port {port}\ntls-cert-file redis.crt\ntls-key-file redis.key\ntls-ca-cert-file redis.crt\n"
        f'tls-auth-clients no\nbind 127.0.0.1\n{rights}\nsave ""\nmaxmemory-policy noeviction\n'
    )
    process = subprocess.Popen([redis, "redis.conf"], cwd=folder, stdout=subprocess.DEVNULL)
    url = f"rediss://cloner:{QUOTED}@localhost:{port}/0?ssl_ca_certs={folder}/redis.crt"
    eventually(lambda: answers(url))
    yield Server(url, process)
    process.kill()
    process.wait()


def answers(url: str) -> bool:
    try:
        return bool(connect(url, retries=0).ping())
    except OSError:
        return False
    except Exception as error:  # noqa: BLE001 - redis-py's own, which are not OSErrors
        return "Connection refused" not in str(error) and "Loading" not in str(error)


@pytest.fixture
def secret_settings(server: Server, tmp_path: Path) -> Settings:
    return Settings(redis_url=server.url, fleet="secret", out_dir=tmp_path / "out", engine=EngineName.FAKE)


def command_lines() -> str:
    """The command lines of all descendants of this process."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return "\n".join(line for line in lines if "redis.conf" not in line)


def page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code}\n{error.read().decode()}"


def test_a_fleet_works_over_tls_and_nobody_sees_its_password(
    server: Server, secret_settings: Settings, tmp_path: Path
) -> None:
    env = environment(secret_settings)
    batch = write_batch(tmp_path, [3, 2])
    port = free_port()
    fleet = LoggedProcess([sys.executable, "-m", "launcher", "up", "--workers", "1"], env, tmp_path)
    flower_env = env | {
        "CELERY_BROKER_URL": server.url,
        "FLOWER_UNAUTHENTICATED_API": "1",
        "FLOWER_ADDRESS": "127.0.0.1",
    }
    flower = LoggedProcess([sys.executable, "-m", "celery", "flower", f"--port={port}"], flower_env, tmp_path)
    seen: dict[str, str] = {}
    try:
        fleet.wait_for(Event.MODELS_LOADED)
        seen["command lines"] = command_lines()
        submitted = run_cloner("submit", str(batch), "--wait", cwd=tmp_path, env=env)
        batch_id = json.loads(submitted.stdout)["batch_id"]
        for command in (["fleet"], ["status", batch_id], ["result", batch_id], ["status", "unknown"]):
            ran = run_cloner(*command, cwd=tmp_path, env=env)
            seen[" ".join(command)] = ran.stdout + ran.stderr
        seen["submit"] = submitted.stdout + submitted.stderr
        eventually(lambda: "collector@box" in page(port, "/api/workers?refresh=1"))
        seen |= {path: page(port, path) for path in PAGES}
        seen["command lines with Flower"] = command_lines()
        seen["Redis"] = redis_holds(server.url)
        server.process.kill()
        fleet.wait_for(Event.REGISTRY_UNREACHABLE)
        fleet.wait_for(Event.REDIS_AWAY)
        seen["fleet without Redis"] = "".join(run_cloner("fleet", cwd=tmp_path, env=env).stderr)
    finally:
        fleet.stop()
        flower.stop(signal.SIGKILL)  # asked to end, it waits for its broker
    seen |= {"launcher": "\n".join(fleet.lines), "Flower": "\n".join(flower.lines)}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            seen[str(path)] = path.read_text(errors="replace")
    assert [where for where, text in seen.items() if CORE in text] == []
    # Flower does not show the texts either.
    assert [where for where in PAGES if "Sentence 0" in seen[where]] == []
    # All outputs were captured.
    for where, words in {
        "submit": '"generated":5',
        f"status {batch_id}": "done, 5/5 segments generated",
        "fleet": "cpu.0@box",
        "/workers": "cpu.0@box",
        "/broker": "localhost",
        "/api/tasks": "cloner.speak_chunk",
        "Flower": "localhost",
        "command lines with Flower": "cloner.worker",
        "Redis": ":manifest",
        "fleet without Redis": "does not answer",
    }.items():
        assert words in seen[where], where


def redis_holds(url: str) -> str:
    """All keys and values in Redis, of Celery and of the product."""
    blobs = connect(url, decode=False)
    read: dict[bytes, Callable[[Any], object]] = {
        b"string": blobs.get,
        b"hash": blobs.hgetall,
        b"set": blobs.smembers,
        b"list": lambda key: blobs.lrange(key, 0, -1),
        b"zset": lambda key: blobs.zrange(key, 0, -1),
    }
    kinds: list[tuple[Any, Any]] = [(key, blobs.type(key)) for key in blobs.scan_iter("*")]
    return "\n".join(f"{key!r}: {read[kind](key)!r}" for key, kind in kinds if kind != b"none")


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "a wrong password": (lambda url: url.replace(QUOTED, f"wr0ng-{CORE}"), "password"),
    "no password": (lambda url: url.replace(f"cloner:{QUOTED}@", ""), "uthenticat"),
    "no authority": (lambda url: url.partition("?")[0], "certificate verify failed"),
    "no certificate": (lambda url: url.replace("redis.crt", "no.crt"), "No such file or directory"),
    "another host": (lambda url: url.replace("localhost", "127.0.0.1"), "certificate"),
}

AWAY: dict[str, Callable[[str], str]] = {
    "no TLS": lambda url: url.replace("rediss://", "redis://").partition("?")[0],
    "no server": lambda url: re.sub(r":\d+/", ":1/", url),
}
"""Changes of the address that cannot be told from a server that is away: a launcher waits for it."""


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_does_not_work_is_a_sentence_without_the_password(
    server: Server, secret_settings: Settings, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    url = change(server.url)
    env = environment(secret_settings) | {"CLONER_REDIS_URL": url}
    write_batch(tmp_path, [1])
    for command in (["cloner", "fleet"], ["cloner", "submit", "batch.json"], ["launcher", "up"]):
        _is_refused(command, env, tmp_path, message)


@pytest.mark.parametrize("change", AWAY.values(), ids=AWAY)
def test_clients_report_a_redis_that_is_away_and_a_launcher_waits_for_it(
    server: Server, secret_settings: Settings, tmp_path: Path, change: Callable[[str], str]
) -> None:
    env = environment(secret_settings) | {"CLONER_REDIS_URL": change(server.url)}
    write_batch(tmp_path, [1])
    for command in (["cloner", "fleet"], ["cloner", "submit", "batch.json"], ["cloner", "run", "batch.json"]):
        _is_refused(command, env, tmp_path, "does not answer")
    launcher = LoggedProcess([sys.executable, "-m", "launcher", "up"], env, tmp_path)
    launcher.wait_for(Event.REGISTRY_UNREACHABLE)
    assert launcher.stop() == 0
    everything = "\n".join(launcher.lines)
    assert "Traceback" not in everything
    assert CORE not in everything


def _is_refused(command: list[str], env: dict[str, str], folder: Path, message: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **env},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    everything = ran.stdout + ran.stderr
    assert ran.returncode == 1, everything
    assert message in everything
    assert "Traceback" not in everything
    assert CORE not in everything
