"""Texts in pieces: the pieces of a text that is long, or asks for pauses, are requests of their own to the engine, and
are joined to its segment's audio.

Everything else sees segments: a piece has a negative number, which only the engine sees. A piece is in flight as its
segment, so a crash makes the whole segment a suspect, and what was generated of it is lost.

Pieces wait for their segment as samples of 16 bits, since engines decode codes to audio by themselves. So segments are
given to the engine in groups, whose long texts have `MOST_JOINED_S` of speech together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Samples16
from cloner.audio_bytes import MOST_WAV_SAMPLES, to_16_bits
from cloner.batch import Generation, piece_seed
from cloner.engine.base import ChunkObserver, SegmentAudio, SegmentFailure, Speak, SpeechRequest, SpeechResult
from cloner.text.length import estimated_frames, is_split
from cloner.text.pauses import pauses_s
from cloner.text.splitting import Piece, split
from cloner.worker.pending import PendingSegment

MOST_JOINED_S = 7200.0
"""Seconds of speech, estimated, of the long texts that are given to the engine together: 0.6 GB of samples. A longer
text is given to it without another long one."""

FADE_SAMPLES = round(0.005 * SAMPLE_RATE)
"""Samples in which a piece fades from silence, and to silence, where it is joined: without it, a join may click."""

Requests = Iterable[SpeechRequest]


def joinable_groups(
    segments: Iterable[int], pending: Mapping[int, PendingSegment], generation: Generation
) -> list[list[int]]:
    """The segments in groups that may be given to the engine together, in their order."""
    groups: list[list[int]] = [[]]
    joined_s = 0.0
    for index in segments:
        text = pending[index].text
        if is_split(text, generation):
            seconds = estimated_frames(text) * FRAME_SAMPLES / SAMPLE_RATE + pauses_s(text)
            if joined_s and joined_s + seconds > MOST_JOINED_S:
                groups.append([])
                joined_s = 0.0
            joined_s += seconds
        groups[-1].append(index)
    return groups


def speak_in_pieces(
    speak: Speak, requests: Requests, observer: ChunkObserver
) -> Generator[SpeechResult | None, None, None]:
    """As `speak`, that of an engine; long texts are generated in pieces, and answered when the last is there."""
    joiner = _Joiner(observer)
    with closing(speak(joiner.expand(requests), joiner)) as results:
        for result in results:
            answer = joiner.take(result) if result else None
            if answer or not result:
                yield answer


@dataclass(eq=False)
class _LongSegment:
    """A segment that is generated in pieces. `audio` has those that are there, by their place."""

    index: int
    pieces: list[Piece]
    fixed_length: bool
    audio: dict[int, Samples16] = field(default_factory=dict)
    frames: int = 0
    samples: int = 0
    failed: bool = False

    def fail(self, code: str, message: str) -> SegmentFailure:
        self.failed = True
        self.audio.clear()
        return SegmentFailure(self.index, code, message)

    def has_room(self, place: int, result: SegmentAudio) -> bool:
        """Whether a WAV file could hold the piece, too."""
        piece = self.pieces[place]
        around = round((piece.lead_s + piece.pause_s) * SAMPLE_RATE)
        return self.samples + len(result.audio) + around <= MOST_WAV_SAMPLES

    def add(self, place: int, result: SegmentAudio) -> None:
        """Keep a piece's audio, its edges faded where it is joined, with the silence around it."""
        piece = self.pieces[place]
        samples = to_16_bits(result.audio).copy()
        _fade(samples, start=place > 0 or piece.lead_s > 0, end=place < len(self.pieces) - 1 or piece.pause_s > 0)
        self.audio[place] = np.concatenate([_silence(piece.lead_s), samples, _silence(piece.pause_s)])
        self.frames += result.frames
        self.samples += len(self.audio[place])

    def join(self) -> SegmentAudio:
        """The segment's audio."""
        joined = np.concatenate([self.audio[place] for place in range(len(self.pieces))])
        self.audio.clear()
        return SegmentAudio(self.index, joined, self.frames)


def _silence(seconds: float) -> Samples16:
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.int16)


def _fade(samples: Samples16, *, start: bool, end: bool) -> None:
    """Let the samples begin or end in silence."""
    faded = min(FADE_SAMPLES, len(samples))
    ramp = np.linspace(0, 1, faded)
    if start:
        samples[:faded] = samples[:faded] * ramp
    if end:
        samples[len(samples) - faded :] = samples[len(samples) - faded :] * ramp[::-1]


class _Joiner:
    """Expands requests for long texts, joins what comes of their pieces, and is the engine's observer meanwhile."""

    def __init__(self, observer: ChunkObserver) -> None:
        self._observer = observer
        self._pieces: dict[int, tuple[_LongSegment, int]] = {}
        """Number of a piece -> its segment, and its place in it."""
        self._count = 0

    def expand(self, requests: Requests) -> Iterator[SpeechRequest]:
        """The requests, with those for long texts replaced by requests for their pieces."""
        for request in requests:
            if not is_split(request.text, request.generation):
                yield request
                continue
            segment = _LongSegment(
                request.segment,
                split(request.text, request.generation, request.language),
                request.generation.fixed_length,
            )
            numbers = range(self._count + 1, self._count + 1 + len(segment.pieces))
            self._count += len(numbers)
            for place, number in enumerate(numbers):
                self._pieces[-number] = segment, place
            for place, number in enumerate(numbers):
                if segment.failed:  # an engine that draws one request after another is not given the others
                    break
                text, seed = segment.pieces[place].text, piece_seed(request.seed, place)
                piece = request.segment, place
                yield replace(request, segment=-number, text=text, seed=seed, piece=piece)

    def take(self, result: SpeechResult) -> SpeechResult | None:
        """The answer for a segment, if this result is the last that it needs."""
        if result.segment >= 0:
            return result
        segment, place = self._pieces.pop(result.segment)
        where = f"piece {place + 1} of {len(segment.pieces)}"
        if segment.failed:
            return None
        if isinstance(result, SegmentFailure):
            return segment.fail(result.code, f"{where}: {result.message}")
        if result.truncated and not segment.fixed_length:
            seconds = len(result.audio) / SAMPLE_RATE
            cut = f"is cut after {result.frames} frames ({seconds:.1f} s): raise max_new_tokens, or lower piece_s"
            return segment.fail("cut_off", f"{where} {cut}")
        if not segment.has_room(place, result):
            return segment.fail(
                "too_long", "its audio would be longer than a WAV file can be, 13.5 hours: split the text"
            )
        segment.add(place, result)
        return segment.join() if len(segment.audio) == len(segment.pieces) else None

    def started(self, segment: int) -> None:
        self._observer.started(self._pieces[segment][0].index if segment < 0 else segment)

    def stopped(self) -> bool:
        return self._observer.stopped()

    def dropped(self, segment: int) -> bool:
        return segment < 0 and self._pieces[segment][0].failed
