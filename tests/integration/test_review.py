"""A batch whose takes are reviewed, by a fleet of real processes and a reviewer that answers what the test says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import Settings
from cloner.state.counters import failed_check
from tests.support.batches import write_batch
from tests.support.processes import LaunchLoaded
from tests.support.stub_reviewer import BAD, BAD_CHECKS, GOOD, stub_reviewer

pytestmark = pytest.mark.slow


def test_all_takes_are_reviewed_and_what_fails_to_the_end_is_a_suspect(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch_loaded()
    with stub_reviewer(settings, lambda request: BAD if request.what.startswith("3.") else GOOD) as reviewer:
        batch = client.submit(write_batch(tmp_path, [40, 1]), review="all")
        result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (41, 0)
    takes = [f"{segment}.1" for segment in range(41)] + ["3.2", "3.3"]
    assert sorted(reviewer.heard) == sorted(takes)
    assert {index: suspect.failed for index, suspect in result.suspects.items()} == {3: BAD_CHECKS}
    review = result.review
    assert (review.mode, review.state) == ("all", "complete")
    assert (review.reviewed, review.failed, review.not_reviewed) == (41, 1, 0)
    progress = batch.progress()
    assert (progress.suspects, progress.error_rate) == (1, review.error_rate)
    failures = Counter[str]()
    for done in client.counts().values():
        failures.update({name: int(count) for name, count in done.items() if name.startswith("failed_check:")})
    assert failures == {failed_check(name): 3 for name in BAD_CHECKS}
    assert review.error_rate
    assert review.error_rate.estimate == pytest.approx(1 / 41, abs=1e-6)
