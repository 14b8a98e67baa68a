"""Splitting a text into pieces that are generated one by one: at the pauses that it asks for; where it is long, at
paragraphs, then at the ends of sentences; a sentence that is too long by itself at its clauses, then at spaces, and at
last between any two graphemes.

Ends of sentences are found by sentencex. Its rules depend on the language, mostly by abbreviations, and those of one
language alone find ends where there are none (`ops/ARCHITECTURE.md`): an end counts if the rules of all `LANGUAGES`
have it there, and those of the text's language if that is known. It takes quadratic time on texts with quotation marks
that are never closed, so it gets a text in windows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import accumulate, pairwise
from math import inf

from wcwidth import iter_graphemes

from cloner.batch import Generation
from cloner.events import Event
from cloner.logs import log_event
from cloner.text.length import estimated_frames, is_speakable, piece_frames
from cloner.text.pauses import between_pauses
from cloner.validation import primary_language

LANGUAGES = ("en", "fr", "es", "de")
"""Languages whose rules are those of every text. The marks that end a sentence are known in all scripts whatever
these."""

OTHER_LANGUAGES = frozenset(
    {"am", "ar", "bg", "bn", "ca", "da", "el", "fi", "gu", "hi", "hy", "it", "ja", "kk", "kn", "ml", "mr", "my", "nl"}
    | {"pa", "pl", "pt", "ru", "sk", "ta", "te", "uk"}
)
"""The others of which sentencex has rules. It takes those of a near one for a language that it does not have."""

WINDOW = 4000
"""Characters that sentencex gets at once."""

_PARAGRAPH = re.compile(r"\n\s*\n")
_CLAUSE_END = re.compile(r"[、,;:،؛]+\s*|[,;:–—…]+\s+")
"""Those of Latin script end a clause before a space only: not in 1,000 or 12:30."""
_WORD = re.compile(r"\S+\s*|\s+")
_SPACE = re.compile(r"\s")


class Break(Enum):
    """What a piece ends with."""

    PARAGRAPH = "paragraph"
    SENTENCE = "sentence"
    CLAUSE = "clause"
    NONE = "none"
    """Neither: the sentence goes on."""

    def pause_s(self, generation: Generation) -> float:
        """Seconds of silence after the piece."""
        match self:
            case Break.PARAGRAPH:
                return generation.paragraph_pause_s
            case Break.SENTENCE:
                return generation.pause_s
            case Break.CLAUSE:
                return generation.pause_s / 2
            case Break.NONE:
                return 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and the silence around it in the segment's audio."""

    text: str
    pause_s: float
    """Seconds of silence behind it."""
    lead_s: float = 0.0
    """Seconds of silence before it, of the first piece alone."""


_Level = tuple[Callable[[str], Iterator[str]], Break]
"""What splits a text, and what its parts end with."""


def own_rules(language: str) -> str:
    """The language whose rules for the ends of sentences a text of this `language` has besides those of `LANGUAGES`;
    empty if there is none."""
    primary = primary_language(language)
    return primary if primary in OTHER_LANGUAGES else ""


def split(text: str, generation: Generation, language: str = "") -> list[Piece]:
    """The pieces of a text, each estimated at `Generation.piece_s` at most, unless segments have a fixed length; those
    that cannot be spoken are left out.

    A pause that the text asks for takes the place of the one that the text's end there would have; those between which
    nothing is spoken add up. A single grapheme is never split, however long. `language` is empty if it is not known.
    """
    rules = (*LANGUAGES, own) if (own := own_rules(language)) else LANGUAGES
    levels: list[_Level] = [(partial(_sentences, rules=rules), Break.SENTENCE), *_LEVELS]
    most = inf if generation.fixed_length else piece_frames(generation)
    pieces: list[Piece] = []
    lead_s = asked_s = 0.0
    for stretch, next_s in between_pauses(text):
        spoken = list(_spoken_parts(stretch, most, levels))
        if spoken:
            if pieces:
                pieces[-1] = replace(pieces[-1], pause_s=asked_s)
            else:
                lead_s = asked_s
            pieces += [Piece(part, end.pause_s(generation)) for part, end in spoken]
            asked_s = 0.0
        asked_s += next_s
    if pieces:
        pieces[-1] = replace(pieces[-1], pause_s=asked_s)
        pieces[0] = replace(pieces[0], lead_s=lead_s)
    return pieces


def _spoken_parts(stretch: str, most: float, levels: Sequence[_Level]) -> Iterator[tuple[str, Break]]:
    """What is spoken of a text without pauses, in parts of at most `most` frames, and what each part ends with."""
    for paragraph in _PARAGRAPH.split(stretch):
        for part, end in _parts(paragraph, most, Break.PARAGRAPH, levels):
            if is_speakable(part):
                yield part.strip(), end


def _sentences(text: str, rules: Sequence[str]) -> Iterator[str]:
    """The sentences, each with the spaces after it."""
    ends = sorted({0, *_sentence_ends(text, rules), len(text)})
    return (text[start:end] for start, end in pairwise(ends))


def _sentence_ends(text: str, rules: Sequence[str]) -> Iterator[int]:
    """Where sentences end within the text, by the rules of all these languages."""
    # Of spaces that take several bytes, sentencex 1.0 cuts one in two, and panics.
    text = _SPACE.sub(" ", text)
    start = 0
    while start < len(text):
        window = text[start : start + WINDOW]
        ends = _agreed_ends(window, rules)
        yield from (start + end for end in ends)
        # The last sentence may go on behind the window: the next window begins with it, unless that is less than half a
        # window further, so that no character is in more than two windows.
        last = max(ends, default=0)
        start += last if last > WINDOW // 2 and start + WINDOW < len(text) else len(window)


def _agreed_ends(window: str, rules: Sequence[str]) -> set[int]:
    """Where sentences end within the window, by the rules of all these languages."""
    from sentencex import segment  # a process that splits no text need not load it

    ends = {len(window)}
    try:
        ends = set.intersection(*(set(accumulate(map(len, segment(language, window)))) for language in rules))
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of Rust code, which has no class that can be imported
        # It would end the process, and each that tries again. Without ends, the window is split at its clauses.
        log_event(Event.TEXT_NOT_SEGMENTED, error=error)
    return ends - {len(window)}


def _clauses(text: str) -> Iterator[str]:
    ends = (match.end() for match in _CLAUSE_END.finditer(text))
    return (text[start:end] for start, end in pairwise(sorted({0, *ends, len(text)})))


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in _WORD.finditer(text))


_LEVELS: tuple[_Level, ...] = (
    (_clauses, Break.CLAUSE),
    (_words, Break.NONE),
    (iter_graphemes, Break.NONE),
)


def _parts(text: str, most: float, end: Break, levels: Sequence[_Level]) -> Iterator[tuple[str, Break]]:
    """The text in parts of at most `most` frames each, split as on the first of the levels, and what is still longer as
    on the next; the last ends with `end`.

    Neighbours are joined to parts of about the same length, as the model speaks a few words alone less naturally.
    """
    if not levels or estimated_frames(text) <= most:
        yield text, end
        return
    (split_text, between), *deeper = levels
    units = [(unit, estimated_frames(unit)) for unit in split_text(text)]
    run: list[tuple[str, float]] = []
    for number, (unit, frames) in enumerate(units, start=1):
        last = number == len(units)
        if frames <= most:
            run.append((unit, frames))
        if run and (last or frames > most):
            *packed, final = _packed(run, most)
            yield from ((part, between) for part in packed)
            yield final, end if last and frames <= most else between
            run = []
        if frames > most:
            yield from _parts(unit, most, end if last else between, deeper)


def _packed(units: list[tuple[str, float]], most: float) -> list[str]:
    """Neighbours joined to as few parts as possible, of about equal frames, `most` at most."""
    left = sum(frames for _, frames in units)
    parts: list[str] = []
    part: list[str] = []
    filled = target = 0.0
    for unit, frames in units:
        if part and (filled + frames > most or filled + frames / 2 > target):
            parts.append("".join(part))
            left -= filled
            part, filled = [], 0.0
        if not part:
            target = left / -(-left // most)
        part.append(unit)
        filled += frames
    return [*parts, "".join(part)]
