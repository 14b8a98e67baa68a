"""A Redis that may go away and come back: said once, and nothing breaks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import RedisError


class Reach:
    """Whether Redis answers, as all parts of a launcher have found it."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self.answers = True

    @contextmanager
    def or_away(self) -> Iterator[None]:
        """Inside it, a Redis that does not answer ends the block, and is told of once."""
        try:
            yield
        except RedisError as error:
            if self.answers:
                self._say(
                    f"[Main] Redis does not answer: {error}; until it does, the registry hears nothing of this box"
                )
            self.answers = False
        else:
            self.answers = True
