"""References that the model has read: each voice's keys and values, computed once and copied into the slots."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from cloner.engine.base import NULL_OBSERVER, StopCheck, Voice
from cloner.engine.memory import is_out_of_memory
from cloner.engine.prompt import PromptBuilder
from cloner.engine.slots.decoder import Decoder
from cloner.engine.tokens import Prefill, Tokens


class PrefixCache:
    """Entries by `Voice.key`, which covers all codebooks and the text; the least recently used is evicted first.

    Entries beyond `capacity_bytes` on the device are held in host memory until the chunk ends, so that no reference is
    read twice for one chunk.
    """

    def __init__(self, decoder: Decoder, prompts: PromptBuilder, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.computed = 0
        """References read so far."""
        self._decoder = decoder
        self._prompts = prompts
        self._entries: OrderedDict[str, Tensor] = OrderedDict()
        self._tokens: dict[str, Tokens] = {}

    def tokens(self, voice: Voice) -> Tokens:
        """The voice's part of a prompt."""
        if voice.key not in self._tokens:
            self._tokens[voice.key] = self._prompts.prefix(voice)
        return self._tokens[voice.key]

    def copy_to_slot(self, voice: Voice, slot: int, stopped: StopCheck = NULL_OBSERVER.stopped) -> bool:
        """Write the voice's keys and values to a slot's first positions. Returns False if it was stopped before they
        were complete."""
        cached = self._entries.get(voice.key)
        if cached is not None:
            self._entries.move_to_end(voice.key)
            self._decoder.cache.write(slot, cached)
            return True
        tokens = self.tokens(voice)
        if not self._decoder.prefill([Prefill(slot, 0, tokens)], stopped):
            return False
        self.computed += 1
        prefix = self._decoder.cache.read(slot, len(tokens))
        fits = self.device_bytes() + prefix.nbytes <= self.capacity_bytes
        self._entries[voice.key] = prefix if fits else prefix.cpu()
        return True

    def offload(self) -> None:
        """Move all entries to host memory until the chunk ends, after the device's memory ran out."""
        for key, prefix in self._entries.items():
            self._entries[key] = prefix.cpu()

    def end_chunk(self) -> None:
        """Evict what exceeds the device's capacity, move the rest to the device, and drop the tokens."""
        self._tokens.clear()
        device = self._decoder.model.device
        while self._entries and sum(prefix.nbytes for prefix in self._entries.values()) > self.capacity_bytes:
            self._entries.popitem(last=False)
        try:
            for key, prefix in self._entries.items():
                self._entries[key] = prefix.to(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._entries.clear()  # each is computed again when its voice comes again

    def device_bytes(self) -> int:
        """Bytes of the entries that are on the device."""
        device = self._decoder.model.device
        return sum(prefix.nbytes for prefix in self._entries.values() if prefix.device == device)
