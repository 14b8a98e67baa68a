"""Codes of several segments to latents at once, without padding: the codec's quantizer over ragged rows, in about 110
launches where upstream's takes 1,240.

`kernels/codec/rows.py` says how segments lie behind one another. Nothing here waits for the GPU, so all of it can be
captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.codec.kernel_set import CodecPlan
from cloner.engine.kernels.codec.rows import cleared_twin


@dataclass(frozen=True)
class _Layer:
    """One of the transformer: the weights of its attention and its feed-forward, layer scales folded in."""

    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    """``[inputs, outputs]``, as `addmm` takes it; so is `down`."""
    feed_norm: Tensor
    up: Tensor
    """The gate's half, and then the other's."""
    down: Tensor


@dataclass(frozen=True)
class _Upsampling:
    """`factor` times the rows, and a ConvNeXt block (a depthwise convolution, layer norm, two products)."""

    factor: int
    raise_weight: Tensor
    raise_bias: Tensor
    depthwise: tuple[Tensor, Tensor, Tensor, Tensor, float]
    """Weight ``[taps, channels]`` and bias; scale, shift and epsilon of the norm; in fp32."""
    wide: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    """Weight ``[inputs, outputs]`` and bias, the layer scale folded in."""


class RaggedQuantizer:
    """An upstream quantizer whose weight norm is baked in, computed as `plan` says. Raises `ValueError` if it is of
    another kind than the published one."""

    def __init__(self, quantizer: Any, plan: CodecPlan) -> None:
        post = quantizer.post_module
        config = post.config
        if config.n_local_heads != config.n_head or config.n_head * config.head_dim != config.dim:
            raise ValueError("a quantizer with grouped heads")
        if any(list(part.parameters()) for part in (post.input_proj, post.output_proj, post.look_ahead_conv)):
            raise ValueError("a quantizer with projections around its transformer")

        def cast(weight: Tensor) -> Tensor:
            return weight.detach().to(plan.dtype).contiguous()

        self._kernels = plan.kernels
        self._heads, self._window = int(config.n_head), int(post.window_size)
        self._epsilon, self._norm = float(config.norm_eps), cast(post.norm.weight)
        self._turns = post.freqs_cis.detach().float().contiguous()
        # A codebook and its projection are one table, and all tables are one: a frame is the sum of ten of its rows.
        books = [*quantizer.semantic_quantizer.quantizers, *quantizer.quantizer.quantizers]
        tables = [book.codebook.weight @ book.out_proj.weight[:, :, 0].T + book.out_proj.bias for book in books]
        self._table = cast(torch.cat(tables))
        self.codebook_sizes = [len(table) for table in tables]
        sizes = torch.tensor(self.codebook_sizes, device=self._table.device)
        self._greatest = (sizes - 1)[:, None]
        self._begin = (sizes.cumsum(0) - sizes)[:, None]
        self._layers = [_layer(layer, cast) for layer in post.layers]
        self._upsamplings = [_upsampling(up, block, cast) for up, block in quantizer.upsample]

    @property
    def columns(self) -> int:
        """Latent columns of a frame."""
        columns = 1
        for upsampling in self._upsamplings:
            columns *= upsampling.factor
        return columns

    def __call__(self, codes: Tensor, first: Tensor) -> Tensor:
        """Latents ``[frames * columns, channels]``, zero in gaps, of codes ``[codebooks, frames]``.

        `first` ``[frames]`` has, for each frame, the frame at which its segment begins, and -1 in gaps.
        """
        index = torch.minimum(codes.long(), self._greatest) + self._begin
        x = functional.embedding_bag(index.T.contiguous(), self._table, mode="sum")
        mask = self._mask(first)
        for layer in self._layers:
            x = self._transformed(x, layer, first, mask)
        x = functional.rms_norm(x, x.shape[1:], self._norm, self._epsilon)
        for upsampling in self._upsamplings:
            x = self._upsampled(x, upsampling, first)
        return cleared_twin(x, first >= 0)

    def _mask(self, first: Tensor) -> Tensor:
        """``[frames, frames]``: a frame sees itself and those before it within the window, of its own segment; one in
        a gap sees itself."""
        frame = torch.arange(len(first), device=first.device)
        begin = torch.maximum(torch.where(first < 0, frame, first), frame - self._window + 1)[:, None]
        return (frame >= begin) & (frame <= frame[:, None])

    def _transformed(self, x: Tensor, layer: _Layer, first: Tensor, mask: Tensor) -> Tensor:
        qkv = functional.linear(functional.rms_norm(x, x.shape[1:], layer.attention_norm, self._epsilon), layer.qkv)
        self._kernels.rotate(qkv, self._turns, first, self._heads)
        q, k, v = qkv.view(1, len(x), 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = torch.addmm(x, seen[0].transpose(0, 1).flatten(1), layer.out)
        up = functional.linear(functional.rms_norm(x, x.shape[1:], layer.feed_norm, self._epsilon), layer.up)
        return torch.addmm(x, self._kernels.gate(up), layer.down)

    def _upsampled(self, x: Tensor, part: _Upsampling, first: Tensor) -> Tensor:
        x = functional.linear(x, part.raise_weight, part.raise_bias).view(len(x) * part.factor, -1)
        hidden = self._kernels.depthwise_norm(x, *part.depthwise, first)
        hidden = functional.gelu(functional.linear(hidden, *part.wide))
        weight, bias = part.narrow
        return torch.addmm(x + bias, hidden, weight)


def _layer(layer: Any, cast: Callable[[Tensor], Tensor]) -> _Layer:
    attention, feed = layer.attention, layer.feed_forward
    return _Layer(
        cast(layer.attention_norm.weight),
        cast(attention.wqkv.weight),
        cast((attention.wo.weight * layer.attention_layer_scale.gamma[:, None]).T),
        cast(layer.ffn_norm.weight),
        cast(torch.cat([feed.w1.weight, feed.w3.weight])),
        cast((feed.w2.weight * layer.ffn_layer_scale.gamma[:, None]).T),
    )


def _upsampling(up: Any, block: Any, cast: Callable[[Tensor], Tensor]) -> _Upsampling:
    weight = up.conv.weight  # [inputs, outputs, factor]: as long as its stride, so that outputs do not overlap
    factor = weight.shape[2]
    if factor != up.conv.stride[0]:
        raise ValueError("a quantizer whose upsampling overlaps")
    depthwise = block.dwconv.conv
    exact = [depthwise.weight[:, 0].T, depthwise.bias, block.norm.weight, block.norm.bias]
    taps, bias, scale, shift = (each.detach().float().contiguous() for each in exact)
    return _Upsampling(
        factor,
        cast(weight.permute(2, 1, 0).reshape(-1, weight.shape[0])),
        cast(up.conv.bias.repeat(factor)),
        (taps, bias, scale, shift, block.norm.eps),
        (cast(block.pwconv1.weight), cast(block.pwconv1.bias)),
        (cast((block.pwconv2.weight * block.gamma[:, None]).T), cast(block.pwconv2.bias * block.gamma)),
    )
