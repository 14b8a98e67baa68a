"""When segments are admitted while others are decoded."""

from __future__ import annotations

PROMPT_COST = 0.2
"""How much longer a step takes that also reads prompts, however few, as a fraction of a step without: 0.23 with 64
decode rows on an H200, 0.21 with 128."""


class AdmissionPause:
    """Segments wait until empty slots have cost as much as one step with prompts does more.

    A slot that is empty for a step loses `1 / slots` of it. Where segments finish at an even rate, what empty
    slots and what prompts cost is together least if the two are equal.
    """

    def __init__(self) -> None:
        self._empty = 0

    def is_over(self, empty: int, slots: int) -> bool:
        """Whether to admit before this step, in which `empty` of the slots would not be used. Called at each step."""
        self._empty += empty
        return self._empty >= PROMPT_COST * slots

    def begin(self) -> None:
        """Segments were admitted."""
        self._empty = 0
