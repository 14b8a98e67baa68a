"""A reviewer's child process: its models, and its entry in the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from redis import Redis, RedisError

from cloner.errors import ClonerError, WorkerBroken, WrongSchema, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.protocol.reviews import REVIEW_RATE, ReviewAnswer, ReviewRequest, unpack_audio
from cloner.queueing.retry import retry_on_outage
from cloner.recogniser.whisper import recogniser_of
from cloner.review.heard import Heard
from cloner.review.models import ReviewModels
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.open_attempts import ReviewAttempts
from cloner.state.registry import Registry, WorkerState, expected_reviewer

MAX_DEATHS = 2
"""Deaths of reviewers in a row while they heard a take, after which it is not heard: fewer than those after which the
launcher puts a message into the dead-letter list, where its batch would get no answer."""

MAX_FAILURES = 10
"""Takes in a row at which the models raise, after which the models are at fault, unless they can still hear the last
take that they have heard before."""


def review_attempts(settings: Settings, redis: Redis, name: str) -> ReviewAttempts:
    """The attempts of the fleet's reviewers to hear a take, for one of them by its `name`."""
    return ReviewAttempts(redis, RedisKeys(settings.fleet), name, settings.batch_ttl_s)


class ReviewerProcess:
    """One per child process."""

    def __init__(self, settings: Settings, name: str, redis: Redis) -> None:
        """`redis` must decode responses."""
        self._settings = settings
        self._info = expected_reviewer(settings, name)
        self._attempts = review_attempts(settings, redis, name)
        self.entries = Registry(redis, RedisKeys(settings.fleet), settings.alive_s).reviewer_entries
        self._models: ReviewModels | None = None
        self._failures = 0
        """Takes in a row at which the models have raised."""
        self._last_heard: ReviewRequest | None = None
        self._steps = 0
        self._state = WorkerState.LOADING

    @property
    def name(self) -> str:
        """The reviewer's."""
        return self._info.name

    def load(self) -> None:
        """Load the models, and register the reviewer as ready. Raises `MissingPackage`, `BadSetting`."""
        name = self._info.name
        self._attempts.note_death()
        self.entries.update(name, pid=os.getpid(), state=WorkerState.LOADING)
        self._models = ReviewModels(recogniser_of(self._settings))
        self._state = WorkerState.READY
        self.entries.count(name, "loads")
        self.entries.update(name, state=WorkerState.READY)
        log_event(Event.REVIEWER_READY)

    def beat(self, registry: Registry) -> None:
        """Send the count of steps, with which the launcher tells work from a hang. Raises `RedisError`."""
        name, entries = self._info.name, registry.reviewer_entries
        entries.beat(name, self._steps)
        if entries.get(name) is None:  # Redis has lost the entry
            entries.register(replace(self._info, state=self._state, pid=os.getpid()))

    @contextmanager
    def counted_attempt(self, task_id: str) -> Iterator[None]:
        """Inside it, a take is heard. Raises `ClonerError` if the last `MAX_DEATHS` attempts killed the process."""
        is_stopped = False
        try:
            if (deaths := retry_on_outage(self._attempts.begin, task_id)) >= MAX_DEATHS:
                raise ClonerError(f"{deaths} reviewers in a row died while they heard it")
            self._set_state(WorkerState.BUSY)
            yield
        except SystemExit:  # a stop signal's
            is_stopped = True
            raise
        finally:
            # Where Redis is away, one attempt too many is counted.
            with suppress(RedisError):
                if is_stopped:
                    self._attempts.withdraw()
                else:
                    self._attempts.end(task_id)
            self._set_state(WorkerState.READY)

    def hear(self, request: ReviewRequest) -> ReviewAnswer:
        """What the models hear.

        Raises `ClonerError` before they are loaded, `WrongSchema` if there are no samples, `WorkerBroken` if the models
        fail whatever they hear, and what they raise.
        """
        try:
            heard = self._hear(request)
        except WrongSchema:  # its sender is at fault
            raise
        except Exception as error:
            self._failures += 1
            if self._failures < MAX_FAILURES or self._hears_again():
                raise
            raise WorkerBroken(
                f"its models could hear none of {self._failures} takes in a row; at last: {reason_of(error)}"
            ) from error
        self._failures, self._last_heard = 0, request
        with suppress(RedisError):
            self.entries.count(self._info.name, "heard")
        return heard.to_answer()

    def _hear(self, request: ReviewRequest) -> Heard:
        if self._models is None:
            raise ClonerError("this process has not loaded the models")
        samples = unpack_audio(request.audio)
        return self._models.hear(
            samples, REVIEW_RATE, request.text, request.language, self._note_step, part=request.part
        )

    def _hears_again(self) -> bool:
        """Whether the models hear what they have heard before; False if that is nothing."""
        if self._last_heard is None:
            return False
        try:
            self._hear(self._last_heard)
        except Exception:  # noqa: BLE001 - `hear` raises the take's own error
            return False
        self._failures = 0
        return True

    def _note_step(self) -> None:
        self._steps += 1

    def _set_state(self, state: WorkerState) -> None:
        self._state = state
        with suppress(RedisError):  # the launcher's checks are reset after an outage
            self.entries.update(self._info.name, state=state)
