"""Which decoder of the codec a device gets: the fastest that sounds like upstream's in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint import fish
from cloner.engine.codec.padded import MIN_SNR_DB, CodecDecoder, snr_db
from cloner.engine.codec.ragged import GpuCodec
from cloner.engine.kernels.codec.kernel_set import TRITON, CodecKernels, CodecPlan
from cloner.engine.kernels.codec.tiles import PUBLISHED_CHANNELS, CodecTiles, codec_tiles
from cloner.events import Event
from cloner.logs import log_event

TRIAL_FRAMES = (40, 24)
"""Frames of the segments that are decoded together at load, and compared with upstream's."""


def load_codec_decoder(
    checkpoint_dir: Path, device: torch.device, batch_frames: int, kernels: Callable[[], CodecKernels] = lambda: TRITON
) -> GpuCodec | CodecDecoder:
    """The codec's decoder for a GPU: with the kernels in fp16, else in bf16 where the numbers are too great for fp16,
    and else `CodecDecoder`, which has a trial of its own. `kernels` is asked when the weights are read and upstream's
    audio is computed: until then, the kernels may still be tried. Raises `LoadFailed`."""
    upstream = fish.load_codec(checkpoint_dir, device, fish.CodecPart.DECODER)
    if has_published_size(upstream):
        exact = [exact_audio(upstream, codes) for codes in trial_codes(device)]
        working = kernels()
        for dtype in (torch.float16, torch.bfloat16):
            codec = _built(upstream, device, batch_frames, CodecPlan(dtype, card_tiles(device), working))
            if codec is None:
                break
            found = least_snr_db(codec, exact)
            if found >= MIN_SNR_DB:  # NaN is not
                return codec
            log_event(Event.CODEC_INEXACT, dtype=dtype, found_db=found, min_db=MIN_SNR_DB)
            del codec
    del upstream
    return CodecDecoder(checkpoint_dir, device, batch_frames)


def card_tiles(device: torch.device) -> CodecTiles:
    """The tiles of this GPU."""
    card = torch.cuda.get_device_properties(device)
    shared_bytes: int = card.shared_memory_per_block_optin  # type: ignore[attr-defined] # torch's stubs lack it
    return codec_tiles((card.major, card.minor), shared_bytes)


def has_published_size(upstream: fish.Codec) -> bool:
    """Whether the codec has the sizes that the kernels' tiles were chosen for."""
    first, *blocks, _activation, _last, _tanh = upstream.decoder.model
    channels = (first.conv.weight.shape[0], *(block.block[1].conv.weight.shape[1] for block in blocks))
    return channels == PUBLISHED_CHANNELS


def trial_codes(device: torch.device) -> list[Tensor]:
    """Random codes ``[codebooks, frames]`` of the trial's segments."""
    random = torch.Generator().manual_seed(0)
    return [
        torch.stack([torch.randint(size, (frames,), generator=random) for size in CODEBOOK_SIZES]).int().to(device)
        for frames in TRIAL_FRAMES
    ]


@torch.inference_mode()
def exact_audio(upstream: fish.Codec, codes: Tensor) -> Tensor:
    """Upstream's audio ``[samples]`` of codes ``[codebooks, frames]``, on the host."""
    audio: Tensor = upstream.decoder(upstream.quantizer.decode(codes[None].long()))[0, 0]
    return audio.cpu()


def least_snr_db(codec: GpuCodec, exact: Sequence[Tensor]) -> float:
    """Signal to noise of the trial's worse segment against `exact`; NaN if one is not finite."""
    audio = dict(codec.decode(trial_codes(codec.device)))
    found = [snr_db(torch.from_numpy(audio[place]), exact[place]) for place in range(len(exact))]
    return float(torch.tensor(found).min())  # which is NaN if one is


def _built(upstream: fish.Codec, device: torch.device, batch_frames: int, plan: CodecPlan) -> GpuCodec | None:
    """A warm decoder; None for a quantizer of another kind."""
    try:
        codec = GpuCodec(upstream, device, batch_frames, plan)
    except ValueError:
        return None
    codec.warm_up()
    return codec
