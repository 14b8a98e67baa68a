"""The Celery application: every setting of Celery, each with its why. Measured figures are for Celery 5.7, kombu
5.7."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import celery.worker.state
from celery import Celery
from celery.platforms import SecurityWarning
from kombu.transport.redis import Transport

from cloner.errors import EXIT_LOAD_FAILED
from cloner.names import PARENT
from cloner.process import PARENT_PID
from cloner.queueing.heartbeat import HOLDER, start_heartbeat
from cloner.queueing.transport import Channel, RequeueOnReconnect
from cloner.settings import Settings
from cloner.state.connection import celery_address, check_address
from cloner.state.keys import RedisKeys

NEVER_S = 100 * 366 * 86_400
"""More seconds than any clock has counted."""


def make_app(settings: Settings, holder: str | None = None) -> Celery:
    """A Celery app for the fleet's Redis; who takes messages is a `holder`, by its name.

    Raises `BadSetting` if no Redis is set, or its address makes no sense.
    """
    url = settings.require_redis_url()
    check_address(url)
    app = Celery("cloner", broker=celery_address(url), backend=celery_address(url))
    app.conf.update(
        # JSON only: a pickle in Redis would be a way to run code on the workers.
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Another fleet on the same Redis must not read what is sent without a queue's name.
        task_default_queue=settings.queues.collector_queue,
        # A message is given back when its worker dies, and acknowledged when the chunk is finished.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # One chunk in hand and none in reserve, so that a chunk of the shared queue waits for whoever is free; what
        # Celery takes in reserve beyond that, `taking.QoS` leaves in its queue.
        worker_prefetch_multiplier=1,
        # One model a worker, in a child: the parent answers and takes orders while it computes.
        worker_concurrency=1,
        worker_pool="prefork",
        # A forked child cannot use CUDA.
        worker_pool_start_method="spawn",
        # Seconds that a replaced child may take to load before it is killed; 4 by default, which would kill
        # each for ever.
        worker_proc_alive_timeout=settings.load_s,
        # A chunk that was finished just before its worker died is not run again.
        worker_deduplicate_successful_tasks=True,
        # A chunk goes on through an outage of Redis (Celery 6 will end it); it is idempotent, should it be
        # delivered again.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Who gives up on Redis, after 100 tries by default, has to load its model again.
        broker_connection_max_retries=None,
        broker_transport_options={
            # A message held longer than this is delivered a second time, by this box's clock, which may jump by days
            # where a machine was suspended: never. The launcher knows better who has died.
            "visibility_timeout": NEVER_S,
            # A worker drains its own queue first, then the shared one, in the order of its -Q.
            "queue_order_strategy": "priority",
            # The kernel notices a Redis whose machine is gone without a word.
            "socket_keepalive": True,
            **(_held_keys(RedisKeys(settings.fleet), holder) if holder else {}),
        },
        # The results of chunks must outlast their batch: the chord waits for ever for one that has expired.
        result_expires=settings.batch_ttl_s,
        # Without it, results are lost in an outage of Redis and the chord waits for ever.
        result_backend_always_retry=True,
        # Whoever watches, as Flower does, sees chunks sent, started and finished.
        worker_send_task_events=True,
        task_send_sent_event=True,
        # Lines and streams are ours (logs.py).
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_log_format="%(message)s",
        worker_log_color=False,
    )
    return app


def _held_keys(keys: RedisKeys, holder: str) -> dict[str, str]:
    """Where kombu keeps the messages that this process has in hand: apart from anybody else's, so that the launcher
    can give them back when it dies."""
    return {
        "unacked_key": keys.unacked(holder),
        "unacked_index_key": keys.unacked_since(holder),
        "unacked_mutex_key": keys.unacked_mutex(holder),
    }


def run_worker(settings: Settings, tasks: str, name: str, queue_names: list[str]) -> int:
    """Run a Celery worker with the tasks of one module until it is stopped; returns its exit status.

    Raises `BadSetting` as `make_app` does.
    """
    app = make_app(settings, name)
    app.steps["consumer"].add(RequeueOnReconnect)
    Transport.Channel = Channel
    # The child is spawned, not forked: it finds its tasks by this name.
    app.conf.imports = ("cloner.queueing.heartbeat", "cloner.queueing.log_filters", tasks)
    # The child ends with this process, and shows signs of life under the same name.
    os.environ[PARENT_PID] = str(os.getpid())
    os.environ[HOLDER] = name
    start_heartbeat(settings, name, PARENT)
    # What we say goes to standard error; Celery's banner and farewells go to standard output.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    # Celery warns root because a pickled message could run anything; ours are JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Workers need not know of each other, and Gossip breaks, with tracebacks, on a lost connection.
    alone = ["--without-mingle", "--without-gossip"]
    try:
        app.worker_main(["worker", "-n", name, "-Q", ",".join(queue_names), "--loglevel", "WARNING", *alone])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    else:
        status = 0
    # Celery ends with 0 when it is told to terminate, whatever status it was told to end with.
    return EXIT_LOAD_FAILED if celery.worker.state.should_terminate == EXIT_LOAD_FAILED else status
