"""The Celery application: every setting of Celery with its reason, as measured with Celery 5.7 and kombu 5.7."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import celery.worker.state
from celery import Celery
from celery.platforms import SecurityWarning

from cloner.errors import EXIT_LOAD_FAILED
from cloner.names import QueueNames, new_task_id
from cloner.process import LEASE, PARENT_PID
from cloner.queueing.heartbeat import CONSUMER
from cloner.queueing.stop_signal import end_after_stop_signal
from cloner.queueing.transport import AMQP, RequeueOnReconnect
from cloner.settings import Settings
from cloner.state.connection import ANSWER_S, CONNECT_S, RETRIES, celery_address, check_address
from cloner.state.key_types import check_own_keys
from cloner.state.keys import RedisKeys

NEVER_S = 100 * 366 * 86_400
"""More seconds than any clock has counted."""


def make_app(settings: Settings, consumer: str | None = None, tasks: Collection[str] = ()) -> Celery:
    """A Celery app for the fleet's Redis. A process that takes messages is a `consumer`, by its name, of its `tasks`.

    Raises `BadSetting` if no Redis is set, or its address makes no sense.
    """
    url = settings.require_redis_url()
    check_address(url)
    address = celery_address(url)
    app = Celery("cloner", broker=address, backend=address, amqp=AMQP if consumer else None)
    app.conf.update(
        # JSON only: a pickle in Redis could run code on the workers.
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Another fleet on the same Redis must not read messages that are sent without a queue's name.
        task_default_queue=settings.queues.collector_queue,
        # A message is acknowledged when its chunk is finished, and requeued when its worker dies.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # One chunk in flight and none prefetched, so that a chunk of the shared queue waits for the next free worker;
        # what Celery would prefetch beyond that, `transport.QoS` leaves in its queue.
        worker_prefetch_multiplier=1,
        # One model a worker, in a child process: the parent answers remote control while the child computes.
        worker_concurrency=1,
        worker_pool="prefork",
        # A forked process cannot use CUDA.
        worker_pool_start_method="spawn",
        # Seconds that a replaced child process may load before it is killed; the default of 4 would kill each of them.
        worker_proc_alive_timeout=settings.load_s,
        # A chunk that was finished just before its worker died does not run again.
        worker_deduplicate_successful_tasks=True,
        # A chunk runs on through an outage of Redis (Celery 6 will end it); it is idempotent, should it be delivered
        # again.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # A worker that gives up on Redis, after 100 tries by default, has to load its model again.
        broker_connection_max_retries=None,
        broker_transport_options={
            # A message that is unacknowledged for longer is delivered a second time, by this box's clock, which may
            # jump by days where a machine was suspended: never. The launcher requeues messages of dead processes.
            "visibility_timeout": NEVER_S,
            # A worker drains its own queue first, then the shared one, in the order of its -Q.
            "queue_order_strategy": "priority",
            # The kernel notices a Redis whose machine is gone without closing its connections.
            "socket_keepalive": True,
            **(_consumer_options(RedisKeys(settings.fleet), consumer, tasks) if consumer else {}),
        },
        # The results of chunks must outlast their batch: a chord never completes if one has expired.
        result_expires=settings.batch_ttl_s,
        # Without it, results are lost in an outage of Redis, and their chord never completes.
        result_backend_always_retry=True,
        # Flower shows chunks sent, started and finished.
        worker_send_task_events=True,
        task_send_sent_event=True,
        # logs.py sets up logging and streams.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_log_format="%(message)s",
        worker_log_color=False,
    )
    return app


def make_client_app(settings: Settings) -> Celery:
    """A Celery app for a client: it reports an outage of Redis, where a worker waits for its end.

    Raises as `make_app` does.
    """
    app = make_app(settings)
    app.conf.update(
        result_backend_always_retry=False,
        result_backend_transport_options={"retry_policy": {"max_retries": RETRIES}},
        redis_socket_connect_timeout=CONNECT_S,
        redis_socket_timeout=ANSWER_S,
    )
    return app


def send_to_collector(app: Celery, queues: QueueNames, task: str, batch_id: str, **arguments: object) -> None:
    """Have a collector run a task for a batch. Raises `OperationalError`."""
    app.send_task(
        task,
        kwargs={"batch_id": batch_id, **arguments},
        queue=queues.collector_queue,
        task_id=new_task_id(batch_id),
        ignore_result=True,
    )


def _consumer_options(keys: RedisKeys, consumer: str, tasks: Collection[str]) -> dict[str, Any]:
    """Where kombu keeps the messages that this process has not acknowledged: apart from those of others, so that the
    launcher can requeue them when it dies. Besides, what `transport.Channel` needs."""
    return {
        "tasks": sorted(tasks),
        "dead_letters_key": keys.dead_letters,
        "consumers_key": keys.consumers,
        "absent_key": keys.absent,
        "consumer": consumer,
        "unacked_key": keys.unacked(consumer),
        "unacked_index_key": keys.unacked_since(consumer),
    }


def run_worker(settings: Settings, module: str, tasks: Collection[str], name: str, queue_names: list[str]) -> int:
    """Run a Celery worker with the `tasks` of one module until it is stopped; returns its exit status.

    The caller sends heartbeats of this process, its child process its own. Raises `BadSetting` as `make_app` does, and
    `Damaged` if a key of a wrong type has ended the worker.
    """
    app = make_app(settings, name, tasks)
    app.steps["consumer"].add(RequeueOnReconnect)
    # The child process is spawned, not forked: it imports its tasks by these names.
    app.conf.imports = ("cloner.queueing.heartbeat", "cloner.queueing.log_filters", module)
    # The child process ends with this one, and sends heartbeats under the same name.
    os.environ[PARENT_PID] = str(os.getpid())
    os.environ[CONSUMER] = name
    if LEASE not in os.environ:  # else a launcher kills what takes too long to stop
        end_after_stop_signal(settings.stop_s)
    # The log goes to standard error; Celery's banner and last lines, on standard output, are dropped.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    # Celery warns root that a pickled message could run any code; messages here are JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Not `worker_main`: that imports every command of Celery, and of Flower. Workers need no news of each other, and
    # Gossip fails, with tracebacks, on a lost connection.
    worker = app.Worker(hostname=name, queues=queue_names, loglevel="WARNING", without_mingle=True, without_gossip=True)
    worker.start()
    # Celery ends with 0 when it is terminated, whatever status it was given.
    terminated = celery.worker.state.should_terminate == EXIT_LOAD_FAILED
    if worker.exitcode and not terminated:
        check_own_keys(settings, name)  # perhaps such a key has ended it
    return EXIT_LOAD_FAILED if terminated else worker.exitcode or 0
