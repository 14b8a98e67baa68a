"""The codec as a stage of its own: codes of many segments to audio, and recordings to codes, in batches.

Upstream's codec is causal, so segments of different lengths decode together, padded at their ends, and each gets
what it would have got alone (measured: within 5e-8 in fp32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cloner.audio import FRAME_SAMPLES, Audio, Codes, check_length, check_recording
from cloner.engine import fish
from cloner.engine.base import UNWATCHED
from cloner.engine.memory import ran_out
from cloner.engine.waveform import Stopped, Waveform
from cloner.events import Event
from cloner.logs import log_event

LEAST_SNR_DB = 30.0
"""Signal to noise, mean removed, that half precision must keep against fp32 to be used."""

TRIAL_FRAMES = 64
"""Frames that are decoded twice at load to measure that."""

CPU_PIECE_FRAMES = 128
"""Frames of a batch, all rows together, whose sound is made at once on a CPU."""


LEAST_FRAMES = 16
"""Frames that a batch may be asked to have at most: with less memory than that, there is no codec."""


class CodecDecoder:
    """Codes to audio: upstream's quantizer, with weight norm baked in and masks kept, and `waveform.py`."""

    def __init__(self, checkpoint_dir: Path, device: torch.device, batch_frames: int) -> None:
        """At most `batch_frames`, padding included, are decoded together. Raises `LoadFailed`."""
        self._checkpoint_dir = checkpoint_dir
        self.device = device
        self._batch_frames = batch_frames
        self._load()
        self.longest_frames = fish.codec_frames(self._codec)
        self.dtype = torch.float32
        # A GPU's libraries plan anew for each length that they have not seen.
        self._round = 32 if device.type == "cuda" else 1
        self._piece_frames = CPU_PIECE_FRAMES if device.type == "cpu" else batch_frames
        if device.type == "cuda":
            self._choose_precision()

    def decode(
        self, codes: Sequence[Tensor], stopped: Callable[[], bool] = UNWATCHED.stopped
    ) -> Iterator[tuple[int, Audio]]:
        """Audio of each of `codes` ``[codebooks, frames]``, with its place among them; in any order.

        When it is `stopped`, it ends within a piece of sound. Where memory runs out, batches and pieces are half as
        large from then on.
        """
        waiting = list(range(len(codes)))
        while waiting:
            frames = [codes[place].shape[1] for place in waiting]
            places = [waiting[number] for number in next(iter(_batches(frames, self._batch_frames)))]
            try:
                audios = self._decode_together([codes[place] for place in places], stopped)
            except Stopped:
                return
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or not self._halve():
                    raise
                continue
            waiting = [place for place in waiting if place not in places]
            yield from zip(places, audios, strict=True)

    def _decode_together(self, codes: Sequence[Tensor], stopped: Callable[[], bool]) -> list[Audio]:
        longest = max(item.shape[1] for item in codes)
        longest = min(-(-longest // self._round) * self._round, self.longest_frames)
        padded = torch.stack([functional.pad(item, (0, longest - item.shape[1])) for item in codes])
        audio = self._decode(padded, stopped).float().cpu().numpy()
        return [row[: item.shape[1] * FRAME_SAMPLES] for row, item in zip(audio, codes, strict=True)]

    def _halve(self) -> bool:
        """Make batches and pieces half as large; False if they are as small as they get."""
        if self._batch_frames <= LEAST_FRAMES:
            return False
        self._batch_frames //= 2
        self._piece_frames = max(1, self._piece_frames // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log_event(Event.CODEC_OUT_OF_MEMORY, frames=self._batch_frames)
        return True

    @torch.inference_mode()
    def _decode(self, codes: Tensor, stopped: Callable[[], bool] = UNWATCHED.stopped) -> Tensor:
        rows, _codebooks, frames = codes.shape
        latents = self._codec.quantizer.decode(codes.long())
        piece = max(self._piece_frames // rows, 1)
        audio: Tensor = self._waveform(latents, piece * latents.shape[-1] // frames, stopped)
        return audio

    def _choose_precision(self) -> None:
        """Half precision on a GPU if it sounds the same, else fp32 with TF32."""
        random = torch.Generator().manual_seed(0)
        trial = torch.randint(0, 1024, (1, 10, TRIAL_FRAMES), generator=random).to(self.device)
        exact = self._decode(trial)
        self.to(torch.float16)
        if not snr_db(self._decode(trial), exact) >= LEAST_SNR_DB:  # NaN is no sound either
            self.to(torch.float32)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    def to(self, dtype: torch.dtype) -> None:
        """Decode in this precision from now on."""
        if dtype is torch.float32 and self.dtype is not torch.float32:
            # What half precision has rounded off is only in the file.
            self._load()
        self._codec.to(dtype)
        self._waveform.to(dtype)
        self.dtype = dtype

    def _load(self) -> None:
        self._codec = fish.load_codec(self._checkpoint_dir, self.device, fish.CodecPart.DECODER)
        self._waveform = Waveform(self._codec.decoder)
        self._codec.decoder = None  # its weights are in the waveform


class CodecEncoder:
    """Recordings to codes: upstream's codec without its decoder."""

    def __init__(self, checkpoint_dir: Path, device: torch.device, batch_frames: int) -> None:
        """At most `batch_frames`, padding included, are encoded together. Raises `LoadFailed`."""
        self._device = device
        self._batch_frames = batch_frames
        self._encoder = fish.load_codec(checkpoint_dir, device, fish.CodecPart.ENCODER)
        self._longest_frames = fish.codec_frames(self._encoder)

    @torch.inference_mode()
    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Codes ``[codebooks, frames]`` of recordings ``[samples]``. Raises `BadReference`."""
        for recording in recordings:
            check_recording(recording)
            check_length(recording, self._longest_frames)
        encoded: dict[int, Codes] = {}
        frames = [-(-recording.size // FRAME_SAMPLES) for recording in recordings]
        for places in _batches(frames, self._batch_frames):
            samples = max(frames[place] for place in places) * FRAME_SAMPLES
            padded = np.stack([np.pad(recordings[place], (0, samples - recordings[place].size)) for place in places])
            indices, _lengths = self._encoder.encode(torch.from_numpy(padded)[:, None].to(self._device))
            for row, place in enumerate(places):
                encoded[place] = indices[row, :, : frames[place]].int().cpu().numpy()
        return [encoded[place] for place in range(len(recordings))]


def snr_db(audio: Tensor, exact: Tensor) -> float:
    """Signal to noise of `audio` against `exact`, both with their mean removed: a constant is not heard."""
    audio, exact = audio.double(), exact.double()
    audio, exact = audio - audio.mean(), exact - exact.mean()
    noise = (audio - exact).square().sum()
    ratio: float = (10 * torch.log10(exact.square().sum() / noise)).item()
    return float("inf") if noise == 0 else ratio


def _batches(sizes: Sequence[int], most: int) -> Iterable[list[int]]:
    """Places of `sizes`, those of similar size together, so that no batch with its padding holds more than `most`;
    one item may, alone."""
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place], reverse=True):
        if batch and sizes[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
