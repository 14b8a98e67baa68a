"""Generating the kept take of a segment again on this box, and comparing it with its file.

An engine in this process generates it alone, with the slots, the kind of device and the seeds that are noted of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import soundfile
from redis import RedisError

from cloner.audio import Codes, format_of
from cloner.audio_bytes import to_16_bits
from cloner.batch import MAX_NEW_TOKENS, Generation, ReferenceKind
from cloner.cli.comparison import compare
from cloner.engine import check_engine, codec_identity, make_engine
from cloner.engine.base import (
    NULL_OBSERVER,
    ChunkObserver,
    Engine,
    SegmentAudio,
    SegmentFailure,
    Speak,
    SpeechRequest,
    SpeechResult,
    Voice,
)
from cloner.engine.environment import environment_of
from cloner.errors import BadReference, BoxTaken, ClonerError, Damaged, NotReproduced, first_line, reason_of
from cloner.events import Event
from cloner.logs import log_event, log_line
from cloner.output.audio_files import OutputRoot
from cloner.output.environments import Environment
from cloner.output.kept_references import KeptReferences, codes_of_recording
from cloner.output.kept_take import KeptTake
from cloner.protocol.references import audio_from_bytes, codes_from_bytes
from cloner.settings import EngineName, Settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_fingerprint
from cloner.text.length import is_split
from cloner.worker.encoding import encode, tags_of
from cloner.worker.pieces import speak_in_pieces
from launcher.cpu import find_cpu
from launcher.gpus import find_gpus
from launcher.layout import Rule, WorkerSpec, plan_layout
from launcher.lease import holder_of

T = TypeVar("T")


@dataclass(frozen=True)
class Reproduction:
    """A take that was generated again."""

    data: bytes
    """Its file, as a worker would have written it."""
    is_same: bool
    compared: str
    """What was compared, and how alike it is."""
    different: list[str]
    """What it was generated with that is different now."""
    environment: Environment | None
    """What it was generated with, if that is noted."""
    cut_at: int = 0
    """Frames after which it was cut, as it had not ended by itself; 0 if it had."""

    @property
    def explanation(self) -> str:
        """Why it may not be the same."""
        why = explanation(self.environment, self.different)
        return f"it had not ended by itself after {self.cut_at} frames, and was cut; {why}" if self.cut_at else why


def explanation(environment: Environment | None, different: list[str]) -> str:
    """Why a take may not be the same as that which was generated with `environment`, of which so much is different."""
    if environment is None:
        return "device, slots and versions with which it was spoken are not noted: an earlier version spoke it"
    if different:
        return f"what differs: {'; '.join(different)}"
    if environment.engine == EngineName.BATCHED and not environment.deterministic:
        return (
            "all that is noted is the same, but without CLONER_DETERMINISTIC what is spoken beside a segment may"
            " change a close choice of a code"
        )
    return "all that is noted is the same: checkpoint, codec, engine, slots, device, versions and options of speech"


def reproduce(take: KeptTake, settings: Settings) -> Reproduction:
    """Generate a take again. `settings` are those of this box, with the output root.

    Raises `NotReproduced` if that cannot be done, as where its checkpoint is another; `BoxTaken` if a fleet runs on
    this box; `LoadFailed`, `MissingPackage`, `UsageError`, `Damaged`.
    """
    settings = _settings_then(take, settings)
    check_engine(settings)
    _check_checkpoint(take, settings)
    take.check_options()
    _check_no_fleet(settings)
    spec = spec_like(take.environment, settings)
    os.environ.update(spec.environment())
    with _loaded(settings, spec) as engine:
        codec = codec_identity(settings)
        now = environment_of(settings, engine, fingerprint=expected_fingerprint(settings), codec=codec, gpu=spec.gpu)
        different = take.environment.differences(now) if take.environment else []
        codes, why_again = _kept_codes(take, settings.out_dir, codec)
        if codes is None:
            codes = _encoded(take, settings.out_dir, engine)
            different.append(f"codec of the speaker's recording (its codes {why_again}, so they were made again)")
        generation = generation_of(take)
        answer = _speak(take, engine, codes, generation)
    if isinstance(answer, SegmentFailure):
        why = explanation(take.environment, different)
        what = f"it failed: {answer.message}"
        if answer.code == "cut_off":
            what = f"a piece of it had not ended by itself after {generation.max_new_tokens} frames, and was cut"
        raise NotReproduced(f"{take} is not reproduced: spoken again, {what}; {why}")
    data = _file_of(take, answer)
    is_same, compared = compare(take, answer.frames, data, OutputRoot(settings.out_dir))
    cut_at = answer.frames if answer.truncated and not generation.fixed_length else 0
    return Reproduction(data, is_same, compared, different, take.environment, cut_at)


def _settings_then(take: KeptTake, settings: Settings) -> Settings:
    """The settings with which the take was generated, as far as they are known. Raises `Damaged`."""
    batch, then = take.batch, take.environment
    name = then.engine if then else batch.engine
    if name not in {"", *EngineName}:
        raise Damaged(f"batch {batch.batch_id} was spoken by an engine {name}, which this version does not have")
    changes: dict[str, object] = {"engine": EngineName(name)} if name else {}
    if batch.checkpoint_dir:
        changes["checkpoint_dir"] = Path(batch.path).parent / batch.checkpoint_dir
    if then:
        changes |= {"deterministic": then.deterministic, "slots": then.slots, "fake_slots": then.slots}
    return settings.model_copy(update=changes)


def _check_checkpoint(take: KeptTake, settings: Settings) -> None:
    """Raise `NotReproduced` if the checkpoint is another."""
    then = take.environment.fingerprint if take.environment else take.batch.fingerprint
    now = expected_fingerprint(settings)
    if then != now:
        raise NotReproduced(
            f"{take} cannot be reproduced: its checkpoint had the fingerprint {then}, and the one in"
            f" {settings.checkpoint_dir.absolute()} has {now}: set CLONER_CHECKPOINT_DIR to that which spoke it."
            " Nothing was spoken or compared"
        )


def _check_no_fleet(settings: Settings) -> None:
    """Raise `BoxTaken` if a fleet runs on this box: its workers may need the memory. Raises `BadSetting`."""
    if not settings.redis_url:
        return
    registry = Registry(
        connect(settings.redis_url, retries=0, answer_s=HASTE_S), RedisKeys(settings.fleet), settings.alive_s
    )
    try:
        holder = holder_of(registry, settings.box)
    except RedisError as error:
        log_event(Event.FLEET_NOT_SEEN, box=settings.box, error=error)
        return
    if holder:
        raise BoxTaken(
            f'a fleet runs on box "{settings.box}" ({holder}), and may need the memory that a take is spoken with:'
            " stop its launcher, or reproduce the take on another box, which has a name of its own in CLONER_BOX"
        )


def spec_like(then: Environment | None, settings: Settings) -> WorkerSpec:
    """A worker of this box, alone, on a device of the kind that generated the take, if there is one: of several cards
    the one with the most free memory."""
    gpus = sorted(find_gpus(only=settings.gpus), key=lambda gpu: gpu.free_bytes, reverse=True)
    if then:
        gpus = [gpu for gpu in gpus if gpu.name == then.device] or ([] if then.threads else gpus)
    (spec,) = plan_layout(gpus[:1], find_cpu(), Rule.of(settings), 1, 1).specs
    return replace(spec, threads=then.threads) if then and then.threads else spec


@contextmanager
def _loaded(settings: Settings, spec: WorkerSpec) -> Iterator[Engine]:
    """The engine, loaded. What goes wrong with it raises `NotReproduced`, or another `ClonerError`."""
    try:
        engine = make_engine(settings, spec.device, spec.memory_gb)
        try:
            engine.load(log_line)
            yield engine
        finally:
            engine.close()
    except ClonerError:
        raise
    except Exception as error:
        raise NotReproduced(f"the segment cannot be reproduced: the engine broke: {reason_of(error)}") from error


def _kept_codes(take: KeptTake, root: Path, codec: str) -> tuple[Codes | None, str]:
    """The codes of the take's reference; None, and why, if it is a recording whose codes are not kept. Raises
    `UsageError`, `NotReproduced`."""
    reference = take.speaker.reference
    if reference.kind is ReferenceKind.AUDIO:
        try:
            return codes_of_recording(root, codec, reference.digest), "are not kept"
        except (OSError, BadReference) as error:
            return None, f"cannot be read: {reason_of(error)}"
    return _from_reference(take, root, codes_from_bytes), ""


def _encoded(take: KeptTake, root: Path, engine: Engine) -> Codes:
    """The codes of the take's recording. Raises `UsageError`, `NotReproduced`."""
    (codes,) = _from_reference(take, root, lambda data: engine.encode([audio_from_bytes(data)]))
    return codes


def _from_reference(take: KeptTake, root: Path, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the take's kept reference. Raises `UsageError`, `NotReproduced`."""
    found: list[bytes] = []
    try:
        KeptReferences(root).restore([take.speaker], lambda _, data: found.append(data))
        return read(found[0])
    except (OSError, BadReference) as error:
        raise NotReproduced(f"{take} cannot be reproduced: its reference: {reason_of(error)}") from error


def generation_of(take: KeptTake) -> Generation:
    """How the take is sampled: unless all segments get the same number of frames, with room for as many as it has.

    `max_new_tokens` is in no content key, so a batch with a lower one reuses longer takes.
    """
    generation = take.batch.generation
    if generation.fixed_length:
        return generation
    most = min(MAX_NEW_TOKENS, max(generation.max_new_tokens, take.line.frames))
    return generation.model_copy(update={"max_new_tokens": most})


def _speak(take: KeptTake, engine: Engine, codes: Codes, generation: Generation) -> SpeechResult:
    """Generate the take alone, each of its pieces with the seed of its kept attempt, and return the engine's result."""

    def speak(requests: Iterable[SpeechRequest], observer: ChunkObserver) -> Generator[SpeechResult | None, None, None]:
        return engine.speak((_with_kept_seed(request) for request in requests), observer)

    def _with_kept_seed(request: SpeechRequest) -> SpeechRequest:
        place = request.piece[1] if request.piece else 0
        return replace(request, seed=take.seeds.get(place, request.seed))

    voice = Voice(codes, take.speaker.reference.text)
    language = take.speaker.language_of(take.line.segment)
    request = SpeechRequest(take.line.segment, take.text, voice, generation, take.seed, language=language)
    speak_all: Speak = partial(speak_in_pieces, speak) if is_split(take.text, generation) else speak
    (answer,) = [result for result in speak_all([request], NULL_OBSERVER) if result]
    if isinstance(answer, SegmentAudio) and take.is_of_16_bits:
        return replace(answer, audio=to_16_bits(answer.audio))
    return answer


def _file_of(take: KeptTake, answer: SegmentAudio) -> bytes:
    """The answer's audio file, as a worker writes it. Raises `NotReproduced`, `SegmentFailed`."""
    tags = tags_of(take.speaker.id, take.text)
    try:
        return encode(answer, take.batch.audio, format_of(take.line.output), tags, lambda: None).data
    except (OSError, soundfile.SoundFileError) as error:
        raise NotReproduced(
            f"{take} cannot be reproduced: what was spoken is not written as {take.line.output}: {first_line(error)}"
        ) from error
