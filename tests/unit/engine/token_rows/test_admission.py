"""When segments are admitted: few steps read prompts, and slots are not empty for long."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from cloner.engine.token_rows import admission
from cloner.engine.token_rows.admission import AdmissionPause
from cloner.engine.token_rows.device import Statuses, StepRows
from tests.support.engine_requests import fixed_request, make_voice
from tests.unit.engine.token_rows.scheduling import codes_of, make


def test_a_pause_ends_when_empty_slots_have_cost_as_much_as_prompts_do() -> None:
    pause = AdmissionPause()
    assert [pause.is_over(1, 20) for _ in range(5)] == [False, False, False, True, True]
    pause.begin()
    assert [pause.is_over(2, 20) for _ in range(2)] == [False, True]
    pause.begin()
    assert not pause.is_over(0, 20)
    assert pause.is_over(20, 20), "nothing is decoded, so there is nothing to wait for"


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_with_few_slots_there_is_no_pause(slots: int) -> None:
    assert AdmissionPause().is_over(1, slots)


def steps_with_prompts(slots: int) -> tuple[int, float]:
    """How many steps read prompts while segments of many lengths are decoded, and which part of the slots is used."""
    scheduler, device = make(slots, prompt_rows=256)
    requests = [fixed_request(make_voice(0), number, 20 + number) for number in range(4 * slots)]
    reading, launch = 0, device.launch

    def counted(rows: StepRows) -> Statuses:
        nonlocal reading
        reading += bool(rows.prompts)
        return launch(rows)

    with patch.object(device, "launch", counted):
        assert len(codes_of(scheduler, requests)) == len(requests)
    frames = sum(request.generation.max_new_tokens for request in requests)
    return reading, frames / (scheduler.usage.steps * slots)


@pytest.mark.parametrize("slots", [32, 64])
def test_segments_that_end_one_after_another_are_replaced_together(slots: int) -> None:
    together, used = steps_with_prompts(slots)
    with patch.object(admission, "PROMPT_COST", 0.0):
        at_once, used_at_once = steps_with_prompts(slots)
    assert together < 0.6 * at_once
    assert used_at_once - 0.02 < used <= used_at_once
