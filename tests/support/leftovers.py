"""What a fleet leaves when its batches are finished: there must be nothing."""

from __future__ import annotations

from cloner import Client
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.validation import HOUSEKEEPING
from tests.support.fleet_processes import Role, fleet_processes, stacks
from tests.support.polling import eventually


def left_behind(client: Client, settings: Settings) -> list[str]:
    """Messages, temporary files and processes that are left when all batches are finished; stops the fleet."""
    problems = []
    workers = client.fleet()
    holders = [worker.name for worker in workers] + [collector_name(settings.box)]
    queues = [worker.queue for worker in workers]
    queues += [settings.queues.shared_queue(), settings.queues.collector_queue]
    keys = [*queues, *(RedisKeys(settings.fleet).unacked(holder) for holder in holders)]
    try:
        eventually(lambda: not client.redis.exists(*keys))
    except AssertionError:
        problems.append(f"messages are left: {[key for key in keys if client.redis.exists(key)]}")
    problems += [f"{path} is left" for path in (settings.out_dir / HOUSEKEEPING).rglob("*part*")]
    for found in fleet_processes(settings.fleet):
        if found.role is Role.LAUNCHER:
            found.process.terminate()
    try:
        eventually(lambda: not list(fleet_processes(settings.fleet)))
    except AssertionError:
        problems.append(f"processes are left:\n{stacks(fleet_processes(settings.fleet))}")
    return problems
