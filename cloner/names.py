"""The names of tasks and queues.

Queue names carry the version of the wire format, so that workers of two versions can share a Redis and each sees only
the messages that it can read. They are built from the box's name in the settings, the GPU and a count, never from a
host name: they must outlive a restart and a container.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

SCHEMA = 3
"""Version of the wire format. Raise it when a message changes in a way that an older process cannot read, or would
misunderstand without the new field."""

SPEAK_CHUNK = "cloner.speak_chunk"
OPEN_BATCH = "cloner.open_batch"
CLOSE_BATCH = "cloner.close_batch"
FIND_FINISHED = "cloner.find_finished"
FIND_PART = "cloner.find_part"
REVIEW_TAKE = "cloner.review_take"

WORKER_TASKS = frozenset({SPEAK_CHUNK})
COLLECTOR_TASKS = frozenset({OPEN_BATCH, CLOSE_BATCH, FIND_FINISHED, FIND_PART})
REVIEWER_TASKS = frozenset({REVIEW_TAKE})

PARENT, CHILD = "parent", "child"
"""The two processes of a worker, collector or reviewer: Celery's own, and the one that runs the tasks."""


def new_task_id(batch_id: str) -> str:
    """An id for a task of a batch. The ids of all tasks of a batch begin with the batch's own id and a dot."""
    return f"{batch_id}.{secrets.token_hex(8)}"


def batch_of_task(task_id: str) -> str:
    """The id of the batch that a task belongs to."""
    return task_id.partition(".")[0]


def collector_name(box: str) -> str:
    """Name of a box's collector, as `WorkerInfo.name` is a worker's."""
    return f"collector@{box}"


def reviewer_name(box: str, number: int) -> str:
    """Name of a box's `number`-th reviewer, as a consumer of messages and in the registry."""
    return f"reviewer-{number}@{box}"


def is_collector(consumer: str) -> bool:
    """Whether that is a collector's name."""
    return consumer.startswith("collector@")


def is_reviewer(consumer: str) -> bool:
    """Whether that is a reviewer's name."""
    return consumer.startswith("reviewer-")


@dataclass(frozen=True, slots=True)
class QueueNames:
    """The queues of one fleet. Several fleets may share a Redis."""

    fleet: str

    def worker_queue(self, box: str, card: str, number: int) -> str:
        """Queue that only the `number`-th worker of `card` ("cpu", or the start of a GPU's UUID) on `box` reads."""
        return f"cloner.{self.fleet}.v{SCHEMA}.{box}.{card}.{number}"

    def shared_queue(self, schema: int = SCHEMA) -> str:
        """Queue that every worker of this wire version reads when its own is empty."""
        return f"cloner.{self.fleet}.v{schema}.shared"

    @property
    def collector_queue(self) -> str:
        """Queue of the CPU worker that opens and closes batches."""
        return f"cloner.{self.fleet}.v{SCHEMA}.collector"

    @property
    def review_queue(self) -> str:
        """Queue of the takes that reviewers hear."""
        return f"cloner.{self.fleet}.v{SCHEMA}.review"

    def is_this_version(self, queue: str) -> bool:
        """Whether the queue carries this version of the wire format."""
        return queue.startswith(f"cloner.{self.fleet}.v{SCHEMA}.")
