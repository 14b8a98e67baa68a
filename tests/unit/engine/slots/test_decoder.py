"""The batched decoder against upstream's own model, on the same weights in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.engine.base import SpeechRequest
from cloner.engine.checkpoint import fish, fish_inference
from cloner.engine.checkpoint.folder import init_checkpoint
from cloner.engine.checkpoint.presets import Preset
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slots.model import END, Model
from tests.support.engine_requests import CPU, codes_of, greedy, make_request, make_scheduler, make_voice

pytestmark = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # upstream's, silenced outside tests

TEXTS = (
    "Hello you.",
    "A somewhat longer text, to be spoken in another voice.",
    "Hm, and",
    "One more of them, neither long nor short.",
)


@pytest.fixture(scope="module", params=[Preset.TINY, pytest.param(Preset.SMALL, marks=pytest.mark.slow)])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "random"
    init_checkpoint(directory, request.param)
    return directory


def eight_requests(**generation: Any) -> list[SpeechRequest]:
    """Eight segments of different lengths and voices."""
    return [
        make_request(make_voice(n, frames=10 + 7 * n), n, TEXTS[n % 4] * (1 + n // 4), seed=n, **generation)
        for n in range(8)
    ]


@contextmanager
def recorded_logits() -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Collects all slow and fast logits that are computed in the context."""
    slow: list[Tensor] = []
    fast: list[Tensor] = []
    make_slow, make_fast = Model.logits, Model.fast_logits

    def keep(made: Tensor, kept: list[Tensor]) -> Tensor:
        kept.append(made.clone())
        return made

    with (
        patch.object(Model, "logits", lambda self, x: keep(make_slow(self, x), slow)),
        patch.object(Model, "fast_logits", lambda self, x: keep(make_fast(self, x), fast)),
    ):
        yield slow, fast


@torch.inference_mode()
def upstream_logits(model: fish.Text2Semantic, request: SpeechRequest, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream's logits for the same prompt and frames: slow ``[frames, 4097]``, fast ``[frames, 9, 1024]``."""
    prompt = torch.cat(
        [
            fish.reference_prompt(model.tokenizer, request.voice.text, request.voice.codes),
            fish.text_prompt(model.tokenizer, request.text),
        ],
        dim=1,
    )
    begin = model.tokenizer.semantic_begin_id
    frames = torch.cat([codes[:1] + begin, codes])
    whole = torch.cat([prompt, frames[:, :-1]], dim=1)[None]
    model.max_seq_len = -1  # makes upstream allocate new caches
    model.setup_caches(1, model.config.max_seq_len, torch.float32)
    # The method of the base class returns all positions; that of the derived class cannot, and adds only a projection.
    out = super(type(model), model).forward_generate(whole, torch.arange(whole.shape[2]), return_all=True)
    hidden = model.fast_project_in(out.hidden_states)
    ours = [*range(begin, begin + END), fish.end_token(model)]
    first = prompt.shape[1] - 1
    slow = out.logits[0, first:, ours]
    fast = []
    for frame in range(codes.shape[1]):
        model.forward_generate_fast(hidden[:, first + frame], torch.tensor([0]))
        logits = [
            model.forward_generate_fast(model.fast_embeddings(codes[book - 1, frame])[None, None], torch.tensor([book]))
            for book in range(1, 10)
        ]
        fast.append(torch.cat(logits, dim=1)[0, :, :1024])
    return slow, torch.stack(fast)


def difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.slow
def test_logits_are_those_of_upstream_at_every_step(checkpoint: Path) -> None:
    scheduler = make_scheduler(checkpoint, 8)
    requests = eight_requests(max_new_tokens=24, min_new_tokens=24)
    with recorded_logits() as (slow, fast):
        results = [result for result in scheduler.run(requests) if isinstance(result, SegmentCodes)]
    assert len(slow) == 25, "one step more shows whether a segment would have continued"
    upstream = fish.load_text2semantic(checkpoint, CPU, torch.float32)
    # All start and end together, so they come in the order of their slots.
    for slot, result in enumerate(results):
        expected_slow, expected_fast = upstream_logits(upstream, result.request, result.codes)
        for frame in range(24):
            assert difference(slow[frame][slot], expected_slow[frame]) < 1e-4
            for book in range(9):
                assert difference(fast[9 * frame + book][slot], expected_fast[frame, book]) < 1e-4


def greedy_upstream(model: fish.Text2Semantic, request: SpeechRequest) -> tuple[Tensor, int]:
    """Upstream's greedy codes with its logits masked as ours are, and the number of frames before the two best logits
    first come closer than 1e-4."""
    forward, forward_fast = model.forward_generate, model.forward_generate_fast
    mask = torch.full((model.config.vocab_size,), -torch.inf)
    begin = model.tokenizer.semantic_begin_id
    mask[begin : begin + END] = 0
    margins: list[float] = []

    def margin(logits: Tensor) -> None:
        best, second = logits.flatten().topk(2).values
        margins[-1] = min(margins[-1], (best - second).item())

    def masked(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        result.logits += mask
        margins.append(float("inf"))
        margin(result.logits)
        return result

    def watched(x: Tensor, input_pos: Tensor) -> Tensor:
        logits: Tensor = forward_fast(x, input_pos)
        if input_pos.item() > 0:
            margin(logits[..., :1024])
        return logits

    with patch.object(model, "forward_generate", masked), patch.object(model, "forward_generate_fast", watched):
        responses = fish_inference.generate_long(
            model=model,
            device="cpu",
            decode_one_token=fish_inference.decode_one_token,
            text=request.text,
            max_new_tokens=request.generation.max_new_tokens + 1,
            temperature=request.generation.temperature,
            top_p=request.generation.top_p,
            repetition_penalty=request.generation.repetition_penalty,
            prompt_text=request.voice.text,
            prompt_tokens=torch.tensor(request.voice.codes),
        )
        codes = next(responses).codes
    unsure = [frame for frame, least in enumerate(margins) if least < 1e-4]
    return codes, min([codes.shape[1], *unsure])


@pytest.mark.slow
def test_greedy_codes_are_those_of_upstream_in_every_slot_whatever_the_neighbours(checkpoint: Path) -> None:
    requests = [
        greedy(
            make_request(make_voice(n, frames=5 + 3 * n), n, TEXTS[n % 4] + " Yes.", max_new_tokens=8, min_new_tokens=8)
        )
        for n in range(20)
    ]
    upstream = fish.load_text2semantic(checkpoint, CPU, torch.float32)
    expected = {request.segment: greedy_upstream(upstream, request) for request in requests}
    assert sum(sure for _, sure in expected.values()) > 120, "most of the 160 frames should be compared"
    scheduler = make_scheduler(checkpoint, 4, resampling=False)
    seen = set()
    for turn in range(4):
        # All have the same length, so they keep their order, and each turn moves every segment to another slot.
        with patch.object(scheduler.decoder, "generated_codes", wraps=scheduler.decoder.generated_codes) as take:
            spoken = codes_of(scheduler, requests[turn:] + requests[:turn])
        seen |= {(segment, call.args[0]) for segment, call in zip(spoken, take.call_args_list, strict=True)}
        for segment, codes in spoken.items():
            theirs, sure = expected[segment]
            assert np.array_equal(codes[:, :sure], theirs[:, :sure].numpy())
    assert seen == {(request.segment, slot) for request in requests for slot in range(4)}
