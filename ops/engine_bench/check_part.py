"""Part `check`: the step on this device against the decoder over slots, in the model's precision and in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from cloner.batch import Generation
from cloner.engine.checkpoint import fish
from cloner.engine.kernels.step.kernel_set import TWINS, KernelSet
from cloner.engine.kernels.step.layout import CODEBOOKS, CODES, CONTINUES, DRAWS, END, POSITION, TOKEN
from cloner.engine.prompt import PromptBuilder
from cloner.engine.slots.cache import KVCache
from cloner.engine.slots.decoder import Decoder, SegmentStart, fast_attention
from cloner.engine.slots.model import Model
from cloner.engine.token_rows.device import GpuStep, StepRows
from cloner.engine.token_rows.paged_cache import RESERVED, pages_of
from cloner.engine.token_rows.rows import PromptPiece, SlotStart, some
from cloner.engine.token_rows.segments import ReadingQueue
from cloner.engine.token_rows.weights import StepWeights
from cloner.engine.tokens import Prefill, Tokens
from ops.engine_bench import check_sampler
from ops.engine_bench.step_model import compile_all, load_weights, make_device, make_scheduler, step_options
from ops.engine_bench.table import Row
from ops.engine_bench.workload import codes_of, make_requests, make_voice

WORSE = 1.25
"""How much further from fp32 than the decoder over slots the step may be."""

STEPS = 3
LENGTH = 512
"""Positions of a slot."""

READ_TOGETHER = 16
"""Slots whose prompts the decoders read at once."""


@dataclass(frozen=True)
class Reference:
    """The decoders over slots of the same weights: in the model's precision, and in fp32."""

    same: Model
    exact: Model


def measure(directory: Path, size: str, name: str, buckets: tuple[int, ...]) -> Iterator[Row]:
    """Every bucket of rows; then twins, the sampler, deterministic mode, and memory that runs out."""
    device = torch.device(name)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    plans = [step_options(rows, resampling=False) for rows in buckets]
    seconds = compile_all(size, [*plans, step_options(16, deterministic=True)], device)
    yield Row("check: kernels compiled", "s", [seconds])
    with torch.inference_mode():
        weights, prompts = load_weights(directory, device, precision)
        same = Model(fish.load_text2semantic(directory, device, precision))
        rounded = fish.load_text2semantic(directory, device, precision)  # the same rounded weights, in fp32
        reference = Reference(same, Model(rounded.float()))
        for rows in buckets:
            yield _logits(weights, prompts, reference, rows)
        yield _logits(weights, prompts, reference, min(16, buckets[-1]), TWINS)
        del reference, same
        yield from check_sampler.rows(device)
        yield _deterministic(weights, prompts)
        yield _out_of_memory(weights, prompts)


def _logits(
    weights: StepWeights, prompts: PromptBuilder, reference: Reference, rows: int, kernels: KernelSet | None = None
) -> Row:
    """`rows` segments of two voices for some steps, the decoders over slots forced along the same codes."""
    step = make_device(weights, step_options(rows, resampling=False), kernels)
    generation = Generation(temperature=0.8, top_p=0.8, repetition_penalty=1.1, min_new_tokens=STEPS)
    voices = [make_voice(voice, frames=100) for voice in range(2)]
    prefixes = [prompts.prefix(voice) for voice in voices]
    texts = [
        prompts.text(line)
        for line in make_requests([STEPS] * rows, voices, [f"Text {'and ' * (n % 7)}" for n in range(rows)])
    ]
    noise = torch.rand(rows, STEPS + 1, DRAWS, generator=torch.Generator().manual_seed(5))
    decoders = []
    for model in (reference.same, reference.exact):
        cache = KVCache(model.slow, rows, LENGTH, model.dtype, model.device)
        decoder = Decoder(model, cache, STEPS, resampling=False)
        slots_texts = list(enumerate(texts))
        for at in range(0, rows, READ_TOGETHER):
            some_slots = slots_texts[at : at + READ_TOGETHER]
            decoder.prefill([Prefill(slot, 0, prefixes[slot % 2]) for slot, _ in some_slots])
            decoder.prefill(
                [Prefill(slot, len(prefixes[slot % 2]), some(text, slice(-1))) for slot, text in some_slots]
            )
        for slot, text in slots_texts:
            start = SegmentStart(some(text, slice(-1, None)), generation, noise[slot])
            decoder.start(slot, len(prefixes[slot % 2]) + len(text) - 1, start)
        decoders.append(decoder)
    pieces = _admit(step, prefixes, texts, generation, noise)
    slots = tuple(range(rows))
    voices_of = tuple(slot % 2 for slot in slots)
    while True:
        now, _ = pieces.take(step.prompt_rows)
        if not pieces.rows:
            break
        step.launch(StepRows((), (), now))()
    worst = [0.0, 0.0]
    for number in range(STEPS):
        # The decoders' logits from their own state, which went along with the step's codes.
        hidden, slow = zip(*(_slow_logits(decoder, rows) for decoder in decoders), strict=True)
        statuses = step.launch(StepRows(slots, voices_of, now if number == 0 else ()))()
        if any(status != CONTINUES for status in statuses):
            raise RuntimeError(f"statuses {statuses}")
        built = step.built
        codes = built.rows.decode.records[:rows, CODES : CODES + CODEBOOKS].long()
        fast = [_last_logits(decoder, state, codes) for decoder, state in zip(decoders, hidden, strict=True)]
        for decoder in decoders:
            decoder.token[:rows] = built.rows.decode.records[:rows, TOKEN].long()
            decoder.codes[:rows] = codes
            decoder.position[:rows] += 1
        if not torch.equal(built.rows.decode.records[:rows, POSITION].long(), decoders[0].position[:rows]):
            raise RuntimeError("positions differ")
        if not torch.equal(built.rows.sampler.generated[:rows, number].long(), codes):
            raise RuntimeError("generated codes differ from the records'")
        ours = (built.step.logits[:rows, : END + 1], built.step.fast_logits[:rows])
        for own, (theirs, exact) in zip(ours, (slow, fast), strict=True):
            worst = [max(worst[0], _off(own, exact)), max(worst[1], _off(theirs, exact))]
    limit = WORSE * worst[1] + 1e-5
    if not worst[0] <= limit:
        raise RuntimeError(f"{rows} rows: logits {worst[0]:.2e} off fp32, and {limit:.2e} is allowed")
    what = f"check: logits, {rows} rows" + (", twins" if kernels else "")
    return Row(what, "off fp32", [worst[0]], [worst[1]], goal=f"<= {WORSE} x the decoder's", less_is_better=True)


def _admit(
    step: GpuStep, prefixes: list[Tokens], texts: list[Tokens], generation: Generation, noise: Tensor
) -> ReadingQueue:
    queue, page = ReadingQueue(), RESERVED
    pages_each, prefix_pages = pages_of(LENGTH), []
    for voice, prefix in enumerate(prefixes[: len(texts)]):
        pages = list(range(page, page + pages_of(len(prefix))))
        page += len(pages)
        prefix_pages.append(pages)
        queue.add(PromptPiece(step.set_prefix(voice, pages), 0, prefix))
    for slot, text in enumerate(texts):
        prefix, voice = prefixes[slot % 2], slot % 2
        own = list(range(page, page + pages_each - 4))
        page += len(own)
        if voice >= len(prefix_pages):
            raise RuntimeError("a voice without pages")
        position = len(prefix) + len(text) - 1
        start = SlotStart(
            some(text, slice(-1, None)), position, len(prefix), prefix_pages[voice], own, generation, noise[slot]
        )
        step.admit(slot, start)
        queue.add(PromptPiece(slot, len(prefix), some(text, slice(-1))))
    return queue


def _slow_logits(decoder: Decoder, rows: int) -> tuple[Tensor, Tensor]:
    model, position = decoder.model, decoder.position[:rows].clone()
    hidden = model.slow.run(
        model.embed(decoder.token[:rows], decoder.codes[:rows])[:, None],
        model.slow.rotation[position][:, None, None],
        decoder.cache.decode_attention(position, LENGTH),
    )
    return hidden, model.logits(hidden[:, 0])


def _last_logits(decoder: Decoder, hidden: Tensor, codes: Tensor) -> Tensor:
    """The last codebook's, along these codes."""
    model, begin = decoder.model, 0
    x = torch.cat([model.fast_start(hidden), model.fast_embed(codes[:, 0])[:, None]], 1)
    logits = x
    for book in range(1, CODEBOOKS):
        rotation = model.fast.rotation[begin : book + 1][None, :, None]
        x = model.fast.run(x, rotation, fast_attention(decoder._fast_cache[:, :, : len(codes)], model.fast, begin))
        logits = model.fast_logits(x[:, -1])
        x = model.fast_embed(codes[:, book])[:, None]
        begin = book + 1
    return logits


def _off(a: Tensor, b: Tensor) -> float:
    """Relative error; NaN passes no comparison."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def _deterministic(weights: StepWeights, prompts: PromptBuilder) -> Row:
    """Codes of segments alone and among others, in one graph shape."""
    scheduler = make_scheduler(make_device(weights, step_options(16, deterministic=True)), prompts)
    voices = [make_voice(voice, frames=60 + voice) for voice in range(3)]
    lines = make_requests([12 + n for n in range(20)], voices, [f"Number {n}" * (1 + n % 5) for n in range(20)])
    together = {answer.request.segment: codes_of(answer).cpu() for answer in scheduler.run(lines)}  # type: ignore[union-attr]
    for line in lines[::7]:
        (alone,) = scheduler.run([line])
        if not torch.equal(codes_of(alone).cpu(), together[line.segment]):
            raise RuntimeError(f"segment {line.segment} has other codes alone than among others")
    return Row("check: deterministic, segments alone and among others", "differ", [0.0], goal="0")


def _out_of_memory(weights: StepWeights, prompts: PromptBuilder) -> Row:
    """The allocator refuses in the middle of a chunk: half of the slots go on, and all segments are generated."""
    scheduler = make_scheduler(make_device(weights, step_options(4)), prompts)
    launch, steps = scheduler.device.launch, 0

    def scarce(rows: StepRows) -> object:
        nonlocal steps
        steps += 1
        if steps == 8:
            torch.empty(2**50, dtype=torch.uint8, device=weights.head.device)
        return launch(rows)

    lines = make_requests([6 + n for n in range(8)], [make_voice(0, frames=60)])
    with patch.object(scheduler.device, "launch", scarce):
        frames = sorted(codes_of(answer).shape[1] for answer in scheduler.run(lines))
    if frames != [6 + n for n in range(8)] or scheduler.pool.slots != 2:
        raise RuntimeError(f"{frames} frames, {scheduler.pool.slots} slots")
    return Row("check: memory ran out once, all segments generated", "slots", [2.0], goal="2")
