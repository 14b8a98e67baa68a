"""In which order both engines give slots to a chunk's segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine_requests import StopWhen, fixed_request, make_scheduler, make_voice
from tests.unit.engine.token_rows.scheduling import make as make_row_scheduler

LATIN = "A sentence of a hundred characters or so, which takes a little over three seconds when it is spoken."
CHINESE = "今天天气很好" * 6
"""Fewer characters than the Latin text, and more speech."""


@pytest.mark.parametrize("engine", ["rows", "slots"])
def test_a_mixed_chunk_begins_with_the_text_that_takes_longest_to_speak(engine: str, tiny: Path) -> None:
    scheduler = make_row_scheduler(1, pages_each=12)[0] if engine == "rows" else make_scheduler(tiny, 1)
    voice = make_voice(0)
    observer = StopWhen(lambda: len(observer.started_segments) == 3)
    requests = [fixed_request(voice, n, 190, text) for n, text in enumerate(["Short.", LATIN, CHINESE])]
    assert len(CHINESE) < len(LATIN)
    list(scheduler.run(requests, observer))
    assert observer.started_segments == [2, 1, 0]
