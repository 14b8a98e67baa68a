"""Why outputs that are there are generated again: an earlier batch generated them with other options."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from posixpath import splitext

from cloner.batch import NOT_IN_CONTENT_KEY, PIECES, Batch, SpeechOptions, segment_seeds
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import SpeakerRow
from cloner.protocol.rows import SegmentRow

UNHEARD = NOT_IN_CONTENT_KEY - {*PIECES, "seed"}
"""Fields of `Generation` that no audio depends on. That of long texts depends on `PIECES`, and all on the seed."""


@dataclass(frozen=True)
class Cause:
    """Options that differ from those with which `count` of `total` outputs were generated."""

    options: tuple[str, ...]
    count: int
    total: int

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.total} outputs are there, but with another {' and another '.join(self.options)}:"
            " they are generated again"
        )


def find_causes(  # noqa: PLR0913 - what was generated, and what would be
    batch: Batch,
    rows: Sequence[SpeakerRow],
    options: SpeechOptions,
    *,
    earlier: Sequence[SpeechOptions],
    finished: Collection[str],
    find: Callable[[Mapping[str, str]], Collection[str]],
) -> list[Cause]:
    """Compare a batch with what it would be with the options of earlier batches.

    `rows` are its speakers as in the manifest, `finished` the outputs that are there. `find` returns which of some
    outputs, given with their content keys, are there.
    """
    causes: list[Cause] = []
    explained = set(finished)
    for other in earlier:
        different = _differences(options, other)
        if not different or len(explained) >= batch.total:
            continue
        wanted: dict[str, str] = {}
        outputs: dict[str, str] = {}
        keys = ContentKeys(other)
        for speaker, row in zip(batch.speakers, rows, strict=True):
            seeds = segment_seeds(speaker, other.generation.seed)
            for (index, text, output, _), seed in zip(row.segments, seeds, strict=True):
                for name in () if output in explained else {output, f"{splitext(output)[0]}.{other.audio.format}"}:
                    wanted[name] = keys.of(row, SegmentRow(index, text, name, seed))
                    outputs[name] = output
        found = find(wanted)
        there = {outputs[name] for name in found}
        if all(name == outputs[name] for name in found):  # these outputs have the format of their own names
            different = [name for name in different if name != "format"]
        if there and different:
            causes.append(Cause(tuple(different), len(there), batch.total))
        explained |= there
    return causes


def _differences(options: SpeechOptions, other: SpeechOptions) -> list[str]:
    """The names of the options that differ and may be heard, as a batch or the command line spells them."""
    named = [
        name
        for ours, theirs in ((options.generation, other.generation), (options.audio, other.audio))
        for name in type(ours).model_fields
        if name not in UNHEARD and getattr(ours, name) != getattr(theirs, name)
    ]
    if options.generation.fixed_length != other.generation.fixed_length:
        named.append("max_new_tokens")
    if options.engine != other.engine:
        named.append("engine")
    return [*named, "checkpoint"] if options.fingerprint != other.fingerprint else named
