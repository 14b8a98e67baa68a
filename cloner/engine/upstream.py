"""fish-speech's own generation, one text at a time: the reference for every other engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from cloner.audio import NOT_NUMBERS, Audio, Codes, check_codes, check_length, check_recording
from cloner.engine.base import (
    NULL_OBSERVER,
    ChunkObserver,
    LogFunction,
    SegmentAudio,
    SegmentFailure,
    SpeechRequest,
    SpeechResult,
)
from cloner.engine.checkpoint import fish, fish_inference
from cloner.engine.checkpoint.folder import check_checkpoint, has_random_weights
from cloner.engine.checkpoint.weights import check_device
from cloner.engine.memory import is_out_of_memory
from cloner.errors import BadReference, LoadFailed, SegmentFailed
from cloner.events import Event

OUT_OF_MEMORY = "the device's memory ran out; start fewer workers on it, or raise FISH_MODEL_MEMORY_GB"


class UpstreamEngine:
    """Text2Semantic through upstream's `generate_long`, then its codec; one slot.

    A segment depends on its text, voice, generation parameters and seed, not on segments before it.
    """

    name = "upstream"
    slots = 1
    warning = ""
    cache_gb = 0.0

    def __init__(self, checkpoint_dir: Path, device: torch.device, precision: torch.dtype) -> None:
        self.trained = not has_random_weights(checkpoint_dir)
        self._checkpoint_dir = checkpoint_dir
        self._device = device
        self._precision = precision
        self._model: fish.Text2Semantic = None
        self._codec: fish.Codec = None
        self._max_frames = 0
        self.steps = 0

    def load(self, log: LogFunction) -> None:
        check_checkpoint(self._checkpoint_dir)
        try:
            check_device(self._device)
            log(Event.LOADING_TEXT2SEMANTIC.line())
            self._model = fish.load_text2semantic(self._checkpoint_dir, self._device, self._precision)
            with self._device:  # the largest KV caches are made here, so that a card that is too small fails now
                self._model.setup_caches(1, self._model.config.max_seq_len, self._precision)
            log(Event.LOADING_DAC.line())
            self._codec = fish.load_codec(self._checkpoint_dir, self._device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LoadFailed(f"the models do not fit: {OUT_OF_MEMORY}") from None
        self._max_frames = fish.codec_frames(self._codec)

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        return [encode(self._codec, self._device, recording) for recording in recordings]

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        for request in requests:
            observer.started(request.segment)
            try:
                result: SegmentAudio | SegmentFailure = self._speak(request, observer)
            except SegmentFailed as failure:
                result = SegmentFailure(request.segment, failure.code, failure.message)
            except _Stopped:
                return
            self.steps += 1
            yield result

    def wake(self) -> None:
        """Nothing: it generates in its caller's thread."""

    def close(self) -> None:
        self._model = self._codec = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _speak(self, request: SpeechRequest, observer: ChunkObserver) -> SegmentAudio:
        check_codes(request.voice.codes)
        try:
            codes, truncated = self._generate(request, observer)
            audio = self._decode(codes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            raise SegmentFailed(OUT_OF_MEMORY, code="out_of_memory") from None
        return SegmentAudio(
            request.segment,
            audio,
            codes.shape[1],
            truncated,
            codes.int().cpu().numpy() if request.with_codes else None,
        )

    def _generate(self, request: SpeechRequest, observer: ChunkObserver) -> tuple[Tensor, bool]:
        """Codes ``[codebooks, frames]`` of one segment, on the device, and whether they were truncated."""
        generation = request.generation
        torch.manual_seed(request.seed)

        def step() -> None:
            self.steps += 1
            if observer.stopped():
                raise _Stopped

        try:
            with _EndGate(self._model, generation.min_new_tokens, step) as gate:
                responses = fish_inference.generate_long(
                    model=self._model,
                    device=self._device,
                    decode_one_token=gate.decode_one_token,
                    text=request.text,
                    # Upstream drops the last one, as if it were the end token.
                    max_new_tokens=min(generation.max_new_tokens, self._max_frames) + 1,
                    temperature=generation.temperature,
                    top_p=generation.top_p,
                    repetition_penalty=generation.repetition_penalty,
                    prompt_text=request.voice.text,
                    prompt_tokens=torch.tensor(request.voice.codes),
                )
                codes: Tensor = next(responses).codes
        except ValueError as error:  # upstream raises it for a prompt that does not fit
            raise SegmentFailed(
                f"reference and text together are too long for the model ({error}): use a shorter reference, or"
                " split the text",
                code="prompt_too_long",
            ) from error
        if not gate.all_finite():
            self._model.max_seq_len = -1  # makes upstream allocate new KV caches: NaN in the old ones would persist
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
        if not is_out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        raise BadReference(f"the reference's recording could not be encoded: {OUT_OF_MEMORY}") from None
    return codes


class _Stopped(Exception):
    """The caller has stopped the chunk."""


class _EndGate:
    """Suppresses the end token during a segment's first frames, and records the logits' finiteness and the last token.

    Upstream samples the first frame with a function of its own, whatever it is passed, so this wraps the model's
    `forward_generate`, which every frame calls. The end token is always suppressed at the first frame, where upstream
    does not check for it. Calls `step` before every frame.
    """

    def __init__(self, model: fish.Text2Semantic, min_frames: int, step: Callable[[], None]) -> None:
        self._model = model
        self._step = step
        self._forward = model.forward_generate
        self._end_token = fish.end_token(model)
        self._suppressed = max(1, min_frames)
        self._finite: list[Tensor] = []
        self._last: Tensor | None = None

    def __enter__(self) -> Self:
        self._model.forward_generate = self._forward_suppressing_end
        return self

    def __exit__(self, *_: object) -> None:
        del self._model.forward_generate  # uncovers the method of its class

    def _forward_suppressing_end(self, *args: Any, **kwargs: Any) -> Any:
        self._step()
        result = self._forward(*args, **kwargs)
        self._finite.append(result.logits.isfinite().all())
        if self._suppressed > 0:
            self._suppressed -= 1
            result.logits[..., self._end_token] = -torch.inf
        return result

    def decode_one_token(self, **kwargs: Any) -> Tensor:
        """Upstream's function, for every frame but the first."""
        self._last = fish_inference.decode_one_token(**kwargs)
        return self._last

    def ended(self) -> bool:
        """Whether the model ended the segment. Upstream also stops at the maximum number of frames, and does not report
        which it was."""
        return self._last is not None and int(self._last.flatten()[0]) == self._end_token

    def all_finite(self) -> bool:
        """Whether all logits were finite. Called once a segment, because it makes the host wait for the GPU."""
        return bool(torch.stack(self._finite).all())
