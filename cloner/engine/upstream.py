"""fish-speech's own generation, one text at a time: the measure of every other engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from cloner.audio import NOT_NUMBERS, Audio, Codes, check_codes, check_length, check_recording
from cloner.engine import fish, fish_inference
from cloner.engine.base import UNWATCHED, Say, SegmentAudio, SegmentFailure, SpeechRequest, SpeechResult, Watch
from cloner.engine.checkpoint import check_checkpoint
from cloner.engine.memory import ran_out
from cloner.engine.weights import check_device
from cloner.errors import BadReference, LoadFailed, SegmentFailed
from cloner.events import Event

OUT_OF_MEMORY = "the device's memory ran out; start fewer workers on it, or raise FISH_MODEL_MEMORY_GB"


class UpstreamEngine:
    """Text2Semantic through upstream's `generate_long`, then its codec; one slot.

    A segment depends on its text, voice, generation parameters and seed, not on what was spoken before it.
    """

    name = "upstream"
    slots = 1
    cache_gb = 0.0

    def __init__(self, checkpoint_dir: Path, device: torch.device, precision: torch.dtype) -> None:
        self._checkpoint_dir = checkpoint_dir
        self._device = device
        self._precision = precision
        self._model: fish.Text2Semantic = None
        self._codec: fish.Codec = None
        self._max_frames = 0
        self.steps = 0

    def load(self, say: Say) -> None:
        check_checkpoint(self._checkpoint_dir)
        check_device(self._device)
        try:
            say(Event.LOADING_TEXT2SEMANTIC.line())
            self._model = fish.load_text2semantic(self._checkpoint_dir, self._device, self._precision)
            with self._device:  # KV caches for the longest segment now, so that a card without room fails here
                self._model.setup_caches(1, self._model.config.max_seq_len, self._precision)
            say(Event.LOADING_DAC.line())
            self._codec = fish.load_codec(self._checkpoint_dir, self._device)
        except torch.OutOfMemoryError:
            raise LoadFailed(f"the models do not fit: {OUT_OF_MEMORY}") from None
        self._max_frames = fish.codec_frames(self._codec)

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        return [encode(self._codec, self._device, recording) for recording in recordings]

    def speak(self, lines: Iterable[SpeechRequest], watch: Watch = UNWATCHED) -> Generator[SpeechResult, None, None]:
        for line in lines:
            watch.started(line.segment)
            try:
                answer: SegmentAudio | SegmentFailure = self._speak(line, watch)
            except SegmentFailed as failure:
                answer = SegmentFailure(line.segment, failure.code, failure.message)
            except _Stopped:
                return
            self.steps += 1
            yield answer

    def close(self) -> None:
        self._model = self._codec = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _speak(self, line: SpeechRequest, watch: Watch) -> SegmentAudio:
        check_codes(line.voice.codes)
        try:
            codes, truncated = self._generate(line, watch)
            audio = self._decode(codes)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            torch.cuda.empty_cache()
            raise SegmentFailed(OUT_OF_MEMORY, code="out_of_memory") from None
        return SegmentAudio(line.segment, audio, codes.shape[1], truncated)

    def _generate(self, line: SpeechRequest, watch: Watch) -> tuple[Tensor, bool]:
        """Codes ``[codebooks, frames]`` of one segment, on the device, and whether they were cut before its end."""
        generation = line.generation
        torch.manual_seed(line.seed)

        def step() -> None:
            self.steps += 1
            if watch.stopped():
                raise _Stopped

        try:
            with _EndGate(self._model, generation.min_new_tokens, step) as gate:
                responses = fish_inference.generate_long(
                    model=self._model,
                    device=self._device,
                    decode_one_token=gate.decode_one_token,
                    text=line.text,
                    # Upstream takes the last one for the end token and drops it.
                    max_new_tokens=min(generation.max_new_tokens, self._max_frames) + 1,
                    temperature=generation.temperature,
                    top_p=generation.top_p,
                    repetition_penalty=generation.repetition_penalty,
                    prompt_text=line.voice.text,
                    prompt_tokens=torch.tensor(line.voice.codes),
                )
                codes: Tensor = next(responses).codes
        except ValueError as error:  # upstream's word for a prompt that does not fit
            raise SegmentFailed(
                f"reference and text together are too long for the model ({error}): use a shorter reference, or"
                " split the text",
                code="prompt_too_long",
            ) from error
        if not gate.all_finite():
            self._model.max_seq_len = -1  # makes upstream allocate new KV caches: NaN in the old ones would live on
            raise SegmentFailed(f"the model's {NOT_NUMBERS}")
        return codes, not gate.ended()

    def _decode(self, codes: Tensor) -> Audio:
        audio, _lengths = self._codec.decode(codes[None].long(), torch.tensor([codes.shape[1]]))
        samples: Audio = audio[0, 0].cpu().numpy()
        if not np.isfinite(samples).all():
            raise SegmentFailed(f"the codec's {NOT_NUMBERS}")
        return samples


@torch.inference_mode()
def encode(codec: fish.Codec, device: torch.device, recording: Audio) -> Codes:
    """Codes ``[codebooks, frames]`` of a recording ``[samples]``. Raises `BadReference`."""
    check_recording(recording)
    check_length(recording, fish.codec_frames(codec))
    try:
        indices, _lengths = codec.encode(torch.tensor(recording).to(device)[None, None])
        codes: Codes = indices[0].int().cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        torch.cuda.empty_cache()
        raise BadReference(f"the reference's recording could not be encoded: {OUT_OF_MEMORY}") from None
    return codes


class _Stopped(Exception):
    """The segment is to be dropped."""


class _EndGate:
    """Holds the end token back during a segment's first frames, and watches the logits and the last token.

    Upstream samples the first frame with a function of its own, whichever it is handed, so this stands in front
    of the model's `forward_generate`, which every frame passes. It holds back at the first frame in any case,
    because upstream does not look there for an end. Calls `step` before every frame.
    """

    def __init__(self, model: fish.Text2Semantic, min_frames: int, step: Callable[[], None]) -> None:
        self._model = model
        self._step = step
        self._forward = model.forward_generate
        self._end_token = fish.end_token(model)
        self._held = max(1, min_frames)
        self._finite: list[Tensor] = []
        self._last: Tensor | None = None

    def __enter__(self) -> Self:
        self._model.forward_generate = self._forward_held
        return self

    def __exit__(self, *_: object) -> None:
        del self._model.forward_generate  # the method of its class comes to light again

    def _forward_held(self, *args: Any, **kwargs: Any) -> Any:
        self._step()
        result = self._forward(*args, **kwargs)
        self._finite.append(result.logits.isfinite().all())
        if self._held > 0:
            self._held -= 1
            result.logits[..., self._end_token] = -torch.inf
        return result

    def decode_one_token(self, **kwargs: Any) -> Tensor:
        """Upstream's, for every frame but the first."""
        self._last = fish_inference.decode_one_token(**kwargs)
        return self._last

    def ended(self) -> bool:
        """Whether the model ended the segment: upstream stops there or at the greatest number, and tells not which."""
        return self._last is not None and int(self._last.flatten()[0]) == self._end_token

    def all_finite(self) -> bool:
        """Whether all logits were numbers. Asked once a segment, because asking makes a GPU wait."""
        return bool(torch.stack(self._finite).all())
