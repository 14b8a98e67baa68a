"""References that the model has read: each voice's keys and values, computed once and copied into the slots."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from cloner.engine.base import Voice
from cloner.engine.decoder import Decoder
from cloner.engine.memory import ran_out
from cloner.engine.prompt import Prompts, Tokens


@dataclass
class PrefixCache:
    """Kept by `Voice.key`, which covers all codebooks and the text; the longest unused goes first.

    What does not fit into `room` bytes on the device waits in the host's memory until the chunk ends, so that no
    reference is read twice for one chunk.
    """

    decoder: Decoder
    prompts: Prompts
    room: int
    computed: int = 0
    _kept: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)
    _tokens: dict[str, Tokens] = field(default_factory=dict)

    def tokens(self, voice: Voice) -> Tokens:
        """The voice's part of a prompt."""
        if voice.key not in self._tokens:
            self._tokens[voice.key] = self.prompts.prefix(voice)
        return self._tokens[voice.key]

    def put(self, voice: Voice, slot: int, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Let a slot know the voice's reference. False if it was told to stop meanwhile: then it does not."""
        kept = self._kept.get(voice.key)
        if kept is not None:
            self._kept.move_to_end(voice.key)
            self.decoder.cache.write(slot, kept)
            return True
        tokens = self.tokens(voice)
        if not self.decoder.fill([(slot, 0, tokens)], stopped):
            return False
        self.computed += 1
        prefix = self.decoder.cache.read(slot, len(tokens))
        self._kept[voice.key] = prefix if self._used() + prefix.nbytes <= self.room else prefix.cpu()
        return True

    def make_room(self) -> None:
        """Where memory ran out: until the chunk ends, all wait in the host's memory."""
        for key, prefix in self._kept.items():
            self._kept[key] = prefix.cpu()

    def shrink(self) -> None:
        """At the end of a chunk: forget what the device has no room for, and the tokens."""
        self._tokens.clear()
        on_device = self.decoder.model.device
        while self._kept and sum(prefix.nbytes for prefix in self._kept.values()) > self.room:
            self._kept.popitem(last=False)
        try:
            for key, prefix in self._kept.items():
                self._kept[key] = prefix.to(on_device)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            self._kept.clear()  # each is read again when its voice comes again

    def _used(self) -> int:
        device = self.decoder.model.device
        return sum(prefix.nbytes for prefix in self._kept.values() if prefix.device == device)
