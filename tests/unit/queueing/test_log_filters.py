"""What Celery's loggers say about a lost connection, and what is printed of it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

import pytest
from celery.exceptions import CPendingDeprecationWarning
from redis.exceptions import ConnectionError as RedisConnectionError

from cloner.events import Event
from cloner.queueing.log_filters import CONNECTION, CONSUMER, filter_outages


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What the root logger's one handler prints, set up as Celery does."""
    root, said = logging.getLogger(), io.StringIO()
    before = root.handlers[:]
    root.handlers = [logging.StreamHandler(said)]
    filter_outages(logger=root)
    yield said
    root.handlers = before
    logging.captureWarnings(False)


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    said: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = RedisConnectionError("Connection refused.")
    for _ in range(2):
        logging.getLogger(CONNECTION).info("Connected to %s", "redis://host")
        logging.getLogger(CONSUMER).warning("%s (%r)", "Connection to broker lost.", lost)
        for second in (2, 4):
            logging.getLogger(CONSUMER).error("Cannot connect to %s: %s.\n%s\n", "redis://host", lost, second)
    logging.getLogger(CONNECTION).info("Connected to %s", "redis://host")
    away = Event.REDIS_AWAY.line(error="Connection refused.")
    assert capsys.readouterr().err.splitlines() == [away, Event.REDIS_BACK.line()] * 2
    assert not said.getvalue()


def test_only_the_traceback_of_a_lost_connection_is_left_out(said: io.StringIO) -> None:
    for error in (RedisConnectionError("gone"), ValueError("a fault")):
        try:
            raise error
        except (RedisConnectionError, ValueError):
            logging.getLogger("celery.worker.request").exception("Couldn't ack")
    logging.getLogger(CONSUMER).error("Received an unknown message: %s", "body")
    assert said.getvalue().startswith("Couldn't ack\nCouldn't ack\nTraceback")
    assert said.getvalue().endswith("ValueError: a fault\nReceived an unknown message: body\n")


def test_of_warnings_only_celerys_plans_are_left_out(said: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("In Celery 6.0 ...", CPendingDeprecationWarning, stacklevel=1)
        warnings.warn("the disk is nearly full", UserWarning, stacklevel=1)
    assert "the disk is nearly full" in said.getvalue()
    assert "Celery 6.0" not in said.getvalue()
