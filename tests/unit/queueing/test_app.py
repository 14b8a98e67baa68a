"""Every setting of Celery. The integration tests show the effect of each, where they can."""

from __future__ import annotations

from typing import Any

import pytest

from cloner.errors import BadSetting
from cloner.queueing.app import make_app, make_client_app
from cloner.settings import Settings

SETTINGS = {
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": "cloner.here.v3.collector",
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_concurrency": 1,
    "worker_pool": "prefork",
    "worker_pool_start_method": "spawn",
    "worker_proc_alive_timeout": 900,
    "worker_deduplicate_successful_tasks": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_max_retries": None,
    "result_expires": 3600,
    "result_backend_always_retry": True,
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_log_format": "%(message)s",
    "worker_log_color": False,
}

TRANSPORT_OPTIONS = {
    "visibility_timeout": 3_162_240_000,
    "queue_order_strategy": "priority",
    "socket_keepalive": True,
}


@pytest.fixture
def conf() -> Any:
    return make_app(Settings(redis_url="redis://localhost", fleet="here", batch_ttl_s=3600)).conf


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_celery_is_set_up(conf: Any, name: str, value: object) -> None:
    assert conf[name] == value
    # Set in app.py: Celery's defaults may change.
    assert conf.value_set_for(name)


@pytest.mark.parametrize(("name", "value"), TRANSPORT_OPTIONS.items())
def test_the_redis_transport_is_set_up(conf: Any, name: str, value: object) -> None:
    assert conf["broker_transport_options"][name] == value


def test_no_app_without_a_redis() -> None:
    with pytest.raises(BadSetting, match="CLONER_REDIS_URL is not set"):
        make_app(Settings())


def test_a_client_reports_an_outage_of_redis_where_a_worker_waits() -> None:
    conf = make_client_app(Settings(redis_url="redis://localhost")).conf
    assert not conf.result_backend_always_retry
    assert conf.redis_socket_timeout == 15
    assert conf.result_backend_transport_options["retry_policy"]["max_retries"] == 2
