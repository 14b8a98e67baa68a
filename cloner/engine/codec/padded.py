"""The codec as a stage of its own: codes of many segments to audio, and recordings to codes, in batches.

Upstream's codec is causal, so segments of different lengths can be decoded together, padded at their ends, with the
same result as alone (measured: within 5e-8 in fp32).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cloner.audio import FRAME_SAMPLES, Audio, Codes, check_length, check_recording
from cloner.engine.base import NULL_OBSERVER, StopCheck
from cloner.engine.checkpoint import fish
from cloner.engine.codec.waveform import Stopped, Waveform
from cloner.engine.memory import is_out_of_memory
from cloner.events import Event
from cloner.logs import log_event

CODEC_FRAMES = 512
"""Frames, padding included, that the codec takes at once: 1.6 MB each in half precision, at the published size."""

MIN_SNR_DB = 30.0
"""Signal to noise, mean removed, that half precision must keep against fp32 to be used."""

TRIAL_FRAMES = 64
"""Frames that are decoded twice at load to measure it."""

CPU_PIECE_FRAMES = 128
"""Frames of a batch, all rows together, that a CPU turns into samples at once."""


MIN_BATCH_FRAMES = 16
"""Batches are not made smaller than this when memory runs out."""


class CodecDecoder:
    """Codes to audio: upstream's quantizer, with weight norm baked in and masks cached, and `waveform.py`."""

    def __init__(self, checkpoint_dir: Path, device: torch.device, batch_frames: int) -> None:
        """At most `batch_frames`, padding included, are decoded together. Raises `LoadFailed`."""
        self._checkpoint_dir = checkpoint_dir
        self.device = device
        self._batch_frames = batch_frames
        self._codec, self._waveform = self._load()
        self.max_frames = fish.codec_frames(self._codec)
        self.dtype = torch.float32
        # A GPU's libraries plan again for each length that they have not met.
        self._length_step = 32 if device.type == "cuda" else 1
        self._piece_frames = CPU_PIECE_FRAMES if device.type == "cpu" else batch_frames
        if device.type == "cuda":
            self._choose_precision()

    def decode(
        self, codes: Sequence[Tensor], stopped: StopCheck = NULL_OBSERVER.stopped
    ) -> Iterator[tuple[int, Audio]]:
        """Audio of each of `codes` ``[codebooks, frames]``, with its index among them; in any order.

        When it is `stopped`, it returns within a piece of audio. When memory runs out, batches and pieces are halved
        from then on.
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
                if not is_out_of_memory(error) or not self._halve_batches():
                    raise
                continue
            waiting = [place for place in waiting if place not in places]
            yield from zip(places, audios, strict=True)

    def _decode_together(self, codes: Sequence[Tensor], stopped: StopCheck) -> list[Audio]:
        longest = max(item.shape[1] for item in codes)
        length = min(-(-longest // self._length_step) * self._length_step, self.max_frames)
        padded = torch.stack([functional.pad(item, (0, length - item.shape[1])) for item in codes])
        audio = self._decode(padded, stopped).float().cpu().numpy()
        return [row[: item.shape[1] * FRAME_SAMPLES] for row, item in zip(audio, codes, strict=True)]

    def _halve_batches(self) -> bool:
        """Halve batches and pieces. Returns False if they are at their minimum."""
        if self._batch_frames <= MIN_BATCH_FRAMES:
            return False
        self._batch_frames //= 2
        self._piece_frames = max(1, self._piece_frames // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log_event(Event.CODEC_OUT_OF_MEMORY, frames=self._batch_frames)
        return True

    @torch.inference_mode()
    def _decode(self, codes: Tensor, stopped: StopCheck = NULL_OBSERVER.stopped) -> Tensor:
        """Samples ``[rows, frames * FRAME_SAMPLES]`` of `codes` ``[rows, codebooks, frames]``."""
        rows, _codebooks, frames = codes.shape
        latents = self._codec.quantizer.decode(codes.long())
        piece = max(self._piece_frames // rows, 1)
        audio: Tensor = self._waveform(latents, piece * latents.shape[-1] // frames, stopped)
        return audio

    def _choose_precision(self) -> None:
        """Use half precision on a GPU if its audio matches fp32, else fp32 with TF32."""
        random = torch.Generator().manual_seed(0)
        trial = torch.randint(0, 1024, (1, 10, TRIAL_FRAMES), generator=random).to(self.device)
        exact = self._decode(trial)
        self.to(torch.float16)
        if not snr_db(self._decode(trial), exact) >= MIN_SNR_DB:  # true of NaN as well
            self.to(torch.float32)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    def to(self, dtype: torch.dtype) -> None:
        """Decode in this precision from now on."""
        if dtype is torch.float32 and self.dtype is not torch.float32:
            # The bits that half precision rounded off are only in the file.
            self._codec, self._waveform = self._load()
        self._codec.to(dtype)
        self._waveform.to(dtype)
        self.dtype = dtype

    def _load(self) -> tuple[fish.Codec, Waveform]:
        codec = fish.load_codec(self._checkpoint_dir, self.device, fish.CodecPart.DECODER)
        waveform = Waveform(codec.decoder)
        codec.decoder = None  # its weights are in the waveform
        return codec, waveform


class CodecEncoder:
    """Recordings to codes: upstream's codec without its decoder."""

    def __init__(self, checkpoint_dir: Path, device: torch.device, batch_frames: int) -> None:
        """At most `batch_frames`, padding included, are encoded together. Raises `LoadFailed`."""
        self._device = device
        self._batch_frames = batch_frames
        self._encoder = fish.load_codec(checkpoint_dir, device, fish.CodecPart.ENCODER)
        self._max_frames = fish.codec_frames(self._encoder)

    @torch.inference_mode()
    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Codes ``[codebooks, frames]`` of recordings ``[samples]``. Raises `BadReference`."""
        for recording in recordings:
            check_recording(recording)
            check_length(recording, self._max_frames)
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
    """Signal to noise of `audio` against `exact`, in dB, both with their mean removed: a constant is not audible."""
    audio, exact = audio.double(), exact.double()
    audio, exact = audio - audio.mean(), exact - exact.mean()
    noise = (audio - exact).square().sum()
    ratio: float = (10 * torch.log10(exact.square().sum() / noise)).item()
    return float("inf") if noise == 0 else ratio


def _batches(sizes: Sequence[int], max_size: int) -> Iterable[list[int]]:
    """Indices of `sizes` in batches of similar sizes, each with its padding at most `max_size`, or one item alone."""
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place], reverse=True):
        if batch and sizes[batch[0]] * (len(batch) + 1) > max_size:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
