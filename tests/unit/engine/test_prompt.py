from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fish_speech.models.text2semantic import inference
from torch import Tensor

from cloner.engine.base import Voice
from cloner.engine.checkpoint import fish, fish_inference
from cloner.engine.prompt import PromptBuilder
from cloner.engine.tokens import Tokens
from cloner.errors import SegmentFailed
from tests.support.engine_requests import CPU, make_request, make_voice

pytestmark = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # upstream's, silenced outside tests


@pytest.fixture(scope="module")
def model(tiny: Path) -> fish.Text2Semantic:
    return fish.load_text2semantic(tiny, CPU, torch.float32)


@pytest.fixture
def prompts(model: fish.Text2Semantic) -> PromptBuilder:
    return PromptBuilder(model.tokenizer, 4096)


class Seen(Exception):
    """Carries the prompt that upstream has made."""


def upstream_prompt(model: fish.Text2Semantic, voice: Voice, text: str) -> Tensor:
    def generate(*, prompt: Tensor, **_: Any) -> None:
        raise Seen(prompt)

    responses = fish_inference.generate_long(
        model=model,
        device="cpu",
        decode_one_token=fish_inference.decode_one_token,
        text=text,
        max_new_tokens=9,
        prompt_text=voice.text,
        prompt_tokens=torch.tensor(voice.codes),
    )
    with patch.object(inference, "generate", generate), pytest.raises(Seen) as seen:
        next(responses)
    prompt: Tensor = seen.value.args[0]
    return prompt


@pytest.mark.parametrize("frames", [1, 30])
@pytest.mark.parametrize(
    ("transcript", "text"),
    [
        ("What the reference says.", "Hello."),
        ("", "x"),
        ("Ünïcode 你好 🐟", " begins and ends with a space "),
        ("Two\nlines", "<|im_end|>(laughing) <|semantic:5|>"),
    ],
)
def test_prefix_and_text_are_the_prompt_that_upstream_makes(
    transcript: str, text: str, frames: int, model: fish.Text2Semantic, prompts: PromptBuilder
) -> None:
    voice = Voice(make_voice(0, frames).codes, transcript)
    prefix, rest = prompts.prefix(voice), prompts.text(make_request(voice, text=text))
    expected = Tokens.of(upstream_prompt(model, voice, text))
    assert torch.equal(torch.cat([prefix.ids, rest.ids]), expected.ids)
    assert torch.equal(torch.cat([prefix.codes, rest.codes]), expected.codes)


def test_tokens_that_are_frames_have_their_codes(prompts: PromptBuilder, model: fish.Text2Semantic) -> None:
    voice = make_voice(0, frames=7)
    prefix = prompts.prefix(voice)
    assert prefix.codes.shape == (len(prefix), 10)
    begin = model.tokenizer.semantic_begin_id
    frames = prefix.ids >= begin
    assert torch.equal(prefix.codes[frames].T, torch.tensor(voice.codes).long())
    assert torch.equal(prefix.ids[frames] - begin, torch.tensor(voice.codes[0]).long())
    assert not prefix.codes[~frames].any()


def test_a_prompt_may_be_as_long_as_upstream_takes_and_no_longer(prompts: PromptBuilder) -> None:
    prompts.check_length(2048)
    with pytest.raises(SegmentFailed, match=r"2049 tokens, and 2048 are possible.*split the text") as failure:
        prompts.check_length(2049)
    assert failure.value.code == "prompt_too_long"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello.",
        "Ünïcode 你好 🐟",
        "<|im_end|>",
        "a<|semantic:7|><|semantic:77|>b <|speaker:0|><|unknown|> <|",
        "<|semantic:1<|im_start|>|>",
        "x " * 250_000 + "<|pad|>",
    ],
)
def test_texts_are_encoded_as_upstreams_tokenizer_encodes_them(model: fish.Text2Semantic, text: str) -> None:
    tokenizer = model.tokenizer
    assert tokenizer.encode(text) == type(tokenizer).encode(tokenizer, text)
