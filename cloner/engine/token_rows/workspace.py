"""Memory that a GPU's worker needs beside its weights and its pages, from the sizes of its models: what is reserved
before the cache gets the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.engine.codec.padded import CODEC_FRAMES
from cloner.engine.kernels.codec.layers import LAST_TAPS
from cloner.engine.kernels.step.layout import CODEBOOKS, DRAWS, FAST_POSITIONS
from cloner.engine.kernels.step.tiles import most_parts
from cloner.engine.memory import GB
from cloner.engine.token_rows.token_step import MOST_PARTS, padded
from cloner.engine.token_rows.weights import LayerWeights, StepWeights
from cloner.protocol.references import MAX_SECONDS

DRIVER_BYTES = 3 * GB // 4
"""For what follows from no size: a CUDA context, about 0.5 GB, and captured graphs with the libraries' workspaces."""

ROUNDING = 1.15
"""Torch's allocator takes whole blocks: 1.35 MiB a frame were measured where the codec asks for 1.19."""

MOST_CODEC_FRAMES, LEAST_CODEC_FRAMES = 1024, 128
"""Frames, gaps included, that the codec decodes together: so many where memory allows, and never fewer by plan."""

CODEC_SHARE = 0.08
"""Fraction of a worker's memory that the activations of such a batch may take."""

RECORDING_FRAMES = max(CODEC_FRAMES, -(-MAX_SECONDS * SAMPLE_RATE // FRAME_SAMPLES))
"""Frames that are encoded together: those of a batch, or of one long recording."""

ENCODER_COPIES = 5
"""Activations of the encoder's first residual units that exist at the same time, in fp32 at the full sample rate."""

FP32_BYTES, HALF_BYTES = 4, 2


@dataclass(frozen=True)
class CodecMemory:
    """What the codec takes: `frame_bytes` for the activations of each frame of a batch that is decoded, and while
    recordings are encoded `encoder_bytes` for weights and `encoding_bytes` for activations."""

    frame_bytes: int
    encoder_bytes: int
    encoding_bytes: int

    @classmethod
    def of(cls, codec: Any) -> CodecMemory:
        """Of an upstream codec, with or without weights."""
        quantizer = codec.quantizer
        encoder = (codec.encoder, quantizer.downsample, quantizer.pre_module, quantizer.quantizer)
        numbers = sum(weight.numel() for part in encoder for weight in part.parameters())
        channels = codec.encoder.block[0].conv.out_channels
        samples = RECORDING_FRAMES * FRAME_SAMPLES
        return cls(
            _decoding_bytes(codec.decoder), numbers * FP32_BYTES, ENCODER_COPIES * samples * channels * FP32_BYTES
        )

    def batch_frames(self, limit: int) -> int:
        """Frames to decode together for a worker that may use `limit` bytes."""
        frames = MOST_CODEC_FRAMES
        while frames > LEAST_CODEC_FRAMES and frames * self.frame_bytes > CODEC_SHARE * limit:
            frames //= 2
        return frames

    def reserved_bytes(self, batch_frames: int) -> int:
        """For the encoder, and for its activations or those of a segment that is longer than a batch: never both,
        since no chunk runs while recordings are encoded. Those of a batch belong to graphs, which are captured before
        the cache is planned."""
        return self.encoder_bytes + max(int(self.encoding_bytes * ROUNDING), batch_frames * self.frame_bytes)


def _decoding_bytes(decoder: Any) -> int:
    """Bytes a frame of the waveform decoder's activations in half precision, as `RaggedWaveform` makes them: each block
    has three, of which one is the block's before at first, and the last also the products of the last convolution."""
    _first, *blocks, _activation, _last, _tanh = decoder.model
    hop = 1
    for block in blocks:
        hop *= block.block[1].stride
    rows, before, most = FRAME_SAMPLES // hop, 0, 0
    for block in blocks:
        up = block.block[1]
        rows *= up.stride
        size = rows * up.conv.out_channels * HALF_BYTES
        most = max(most, before + 2 * size, 3 * size)
        before = size
    return int(max(most, 3 * before + rows * LAST_TAPS * FP32_BYTES) * ROUNDING)


def step_bytes(weights: StepWeights, slots: int, prompts: int, frames: int) -> int:
    """Of the buffers of a step over `slots` decode rows and `prompts` prompt rows, of segments of at most `frames`."""
    sizes = weights.slow[0].attention.heads
    by_frame = (slots + 1) * (frames + 1) * (DRAWS * FP32_BYTES + CODEBOOKS * HALF_BYTES)
    logits = FP32_BYTES * (padded(slots) * len(weights.head) + padded(2 * slots) * len(weights.fast_head))
    activations = padded(slots + prompts) * _row_bytes(weights.slow[0]) + padded(2 * slots) * _row_bytes(
        weights.fast[0]
    )
    parts = padded(slots) * sizes.heads * MOST_PARTS * (sizes.head_dim + 2) * FP32_BYTES
    fast = weights.fast[0].attention.heads
    cache = len(weights.fast) * 2 * slots * fast.kv_heads * FAST_POSITIONS * fast.head_dim * weights.head.itemsize
    return int((by_frame + logits + activations + parts + cache) * ROUNDING)


def _row_bytes(layer: LayerWeights) -> int:
    """Of a row's residual stream, its squares and what is between a layer's products."""
    widths = layer.qkv.shape[1] + layer.qkv.shape[0] + layer.out.shape[1] + layer.down.shape[1]
    return widths * layer.qkv.itemsize + most_parts(layer.qkv.shape[1]) * FP32_BYTES
