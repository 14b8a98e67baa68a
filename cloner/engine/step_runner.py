"""How many slots and positions a step of the decoder takes, on a CPU."""

from __future__ import annotations

from cloner.engine.decoder import Decoder


class StepRunner:
    """Runs steps. With `deterministic`, all have one shape, so a segment's codes do not depend on its neighbours."""

    def __init__(self, decoder: Decoder, *, deterministic: bool) -> None:
        self.deterministic = deterministic
        self.initial_slots = decoder.cache.slots
        self.initial_positions = decoder.cache.total_positions
        """Positions of all slots together before memory ran out."""
        self.current_slots = self.initial_slots
        """Slots of the usual length: fewer than `initial_slots` after memory ran out."""
        self._decoder = decoder

    @property
    def slots(self) -> int:
        """Slots that a step may use now: fewer while the cache is partitioned into longer ones."""
        return min(self.current_slots, self._decoder.cache.slots)

    def resize(self, slots: int) -> None:
        """Change the number of slots, and the cache's memory in proportion. Their contents are lost. If the memory for
        them runs out, call it again with fewer."""
        self._decoder.cache.resize(self.initial_positions * slots // self.initial_slots)
        self.current_slots = slots

    def step(self, active: int, max_position: int) -> list[int]:
        """Step the first `active` slots, the greatest position of which is `max_position`. Returns the status of
        each."""
        if self.deterministic:
            self._decoder.step(self.slots, self._decoder.cache.positions)
        else:
            self._decoder.step(active, max_position + 1)
        status: list[int] = self._decoder.status[:active].tolist()
        return status
