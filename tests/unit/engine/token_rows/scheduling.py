"""A scheduler of token rows on a fake device, and what it answers."""

from __future__ import annotations

from typing import Any, cast

import torch

from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SegmentFailure, SpeechRequest
from cloner.engine.prompt import PromptBuilder
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.token_rows.device import StepDevice
from cloner.engine.token_rows.paged_cache import RESERVED
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.segments import SegmentFactory
from tests.unit.engine.token_rows.fake_device import FakeDevice, FakePrompts


def make(slots: int, **options: Any) -> tuple[RowScheduler, FakeDevice]:
    device = FakeDevice(slots, **options)
    factory = SegmentFactory(cast(PromptBuilder, FakePrompts()), 4096, 1024, device.pages - RESERVED)
    return RowScheduler(cast(StepDevice, device), factory), device


def codes_of(
    scheduler: RowScheduler, requests: list[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
) -> dict[int, torch.Tensor]:
    answers = list(scheduler.run(requests, observer))
    assert all(isinstance(answer, SegmentCodes) for answer in answers), answers
    return {answer.request.segment: answer.codes for answer in answers if isinstance(answer, SegmentCodes)}


def failures(answers: list[Any]) -> list[tuple[int, str]]:
    return [(answer.segment, answer.code) for answer in answers if isinstance(answer, SegmentFailure)]


def own_noise(request: SpeechRequest, frames: int) -> torch.Tensor:
    noise = torch.rand(frames, 11, generator=torch.Generator().manual_seed(request.seed))
    return (noise[:, :10] * 1000).int().T
