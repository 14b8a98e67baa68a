"""A batch whose takes are reviewed, by a fleet of real processes and a reviewer that answers what the test says."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from celery.exceptions import Reject

from cloner import Client
from cloner.events import Event
from cloner.protocol.results import BatchResult
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.settings import Settings
from cloner.state.counters import FAILED_CHECK, Count, failed_check
from tests.support.batches import write_batch
from tests.support.processes import Launch, LaunchLoaded, environment, run_cloner
from tests.support.recognition import MODEL
from tests.support.records import generated_by_workers
from tests.support.stub_reviewer import BAD, BAD_CHECKS, GOOD, stub_reviewer
from tests.support.voices import find_recordings

pytestmark = pytest.mark.slow


def test_all_takes_are_reviewed_and_what_fails_to_the_end_is_a_suspect(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch_loaded()
    with stub_reviewer(settings, lambda request: BAD if request.what.startswith("3.") else GOOD) as reviewer:
        path = write_batch(tmp_path, [40, 1])
        batch = client.submit(path, review="all")
        result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (41, 0)
    takes = [f"{segment}.1" for segment in range(41)] + ["3.2", "3.3"]
    assert sorted(reviewer.heard) == sorted(takes)
    assert generated_by_workers(settings, batch.id) == sorted([*range(41), 3, 3])
    assert {request.text for request in reviewer.requests} == {f"Sentence {n} of the batch." for n in range(41)}
    assert {index: suspect.failed for index, suspect in result.suspects.items()} == {3: BAD_CHECKS}
    review = result.review
    assert (review.mode, review.state) == ("all", "complete")
    assert (review.reviewed, review.failed, review.not_reviewed) == (41, 1, 0)
    progress = batch.progress()
    assert (progress.suspects, progress.error_rate) == (1, review.error_rate)
    assert review_counts(client, path) == {failed_check(name): 3 for name in BAD_CHECKS} | {Count.REVIEW_SUSPECTS: 1}
    assert review.error_rate
    assert review.error_rate.estimate == pytest.approx(1 / 41, abs=1e-6)
    folder = settings.out_dir / ".cloner" / batch.id
    with (folder / "manifest.csv").open(newline="") as file:
        assert {row["segment"]: row["checks"] for row in csv.DictReader(file)}["3"] == " ".join(BAD_CHECKS)
    assert "Error rate" in (folder / "report.html").read_text()
    assert list(client.redis.scan_iter("celery-task-meta-*")) == []

    # What the same batch reuses, with its reviews, is not counted again.
    counts = review_counts(client, path)
    with stub_reviewer(settings, lambda _: GOOD) as reviewer:
        again = client.submit(path, review="all").wait(timeout=100)
    assert (again.reused, [*again.suspects], reviewer.heard) == (41, [3], [])
    assert review_counts(client, path) == counts


def review_counts(client: Client, batch: Path) -> Counter[str]:
    """What the collector has counted of reviews. It does so after it has closed a batch, and then answers a plan."""
    client.plan(batch)
    counts = Counter[str]()
    for done in client.counts().values():
        names = [name for name in done if name.startswith(FAILED_CHECK) or name == Count.REVIEW_SUSPECTS]
        counts.update({name: int(done[name]) for name in names})
    return counts


def test_two_collectors_send_windows_of_one_batch(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """Each takes the messages that the other one does not, and none is of a take that the other one has judged."""
    fleets = [launch("--workers", "1", box=box) for box in ("first", "second")]
    for fleet in fleets:
        fleet.wait_for(Event.MODELS_LOADED)
    with stub_reviewer(settings, lambda request: BAD if request.what.startswith("3.") else GOOD) as reviewer:
        result = client.submit(write_batch(tmp_path, [200]), review="all").wait(timeout=200)
    assert sorted(reviewer.heard) == sorted([*(f"{segment}.1" for segment in range(200)), "3.2", "3.3"])
    assert (result.review.state, result.review.reviewed, result.review.failed) == ("complete", 200, 1)


def test_suspects_and_a_sample_are_reviewed_where_a_reviewer_is_alive(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch_loaded()
    assert client.submit(write_batch(tmp_path / "a", [2]), prefix="a").wait(timeout=60).review.state == "none"
    with stub_reviewer(settings, lambda _: GOOD) as reviewer:
        result = client.submit(write_batch(tmp_path / "b", [3], outputs="b"), prefix="b").wait(timeout=60)
        assert (result.review.mode, result.review.state, result.review.reviewed) == ("suspects", "complete", 3)
        assert sorted(reviewer.heard) == ["0.1", "1.1", "2.1"]
        path = write_batch(tmp_path / "c", [3], outputs="c", review="none")
        assert client.submit(path, prefix="c").wait(timeout=60).review.state == "none"


class Held:
    """A reviewer that hears nothing until the test says so."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.begun = threading.Event()

    def __call__(self, _: ReviewRequest) -> ReviewAnswer:
        self.begun.set()
        assert self.may_go_on.wait(60)
        return GOOD


def test_clients_see_how_far_the_review_is(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch_loaded()
    held = Held()
    with stub_reviewer(settings, held):
        batch = client.submit(write_batch(tmp_path, [3]), review="all")
        assert held.begun.wait(60)
        assert batch.progress().reviewing == "reviewing 0 of 3"
        status = run_cloner("status", batch.id, cwd=tmp_path, env=environment(settings))
        assert status.stdout.startswith(f"{batch.id}: running, 3/3 segments generated, 0 failed, ")
        assert status.stdout.endswith(" s of audio, reviewing 0 of 3\n")
        held.may_go_on.set()
        batch.wait(timeout=60)
        assert run_cloner("status", batch.id, cwd=tmp_path, env=environment(settings)).stdout.endswith(" of audio\n")


def test_a_batch_that_is_cancelled_during_its_review_is_closed_without(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch_loaded()
    held = Held()
    with stub_reviewer(settings, held):
        batch = client.submit(write_batch(tmp_path, [3]), review="all")
        assert held.begun.wait(60)
        batch.cancel()
        result = batch.wait(timeout=60)
        held.may_go_on.set()
    assert (result.generated, result.cancelled, result.review.state) == (3, True, "incomplete")
    assert fleet.find(Event.REVIEW_ENDED, batch=batch.id)


def test_without_a_reviewer_the_batch_is_closed_and_says_so(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch_loaded(alive_s=10)
    batch = client.submit(write_batch(tmp_path, [3]), review="all")
    result = batch.wait(timeout=100)
    assert (result.generated, result.failed, result.cancelled) == (3, 0, False)
    assert (result.review.state, result.review.reviewed, result.review.not_reviewed) == ("incomplete", 0, 3)
    assert fleet.find(Event.REVIEW_ENDED, batch=batch.id)


def test_a_take_whose_review_always_ends_its_reviewer_is_given_up_alone(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """As where the message is given up, after three reviewers have died of it: it leaves no result."""

    def lost(request: ReviewRequest) -> ReviewAnswer:
        if request.what == "1.1":
            raise Reject("it is given up", requeue=False)
        return GOOD

    launch_loaded()
    with stub_reviewer(settings, lost) as reviewer:
        result = client.submit(write_batch(tmp_path, [4]), review="all").wait(timeout=100)
    assert sorted(reviewer.heard) == ["0.1", "2.1", "3.1"]
    assert (result.review.state, result.review.reviewed, result.review.not_reviewed) == ("complete", 3, 1)
    assert (result.generated, result.suspects) == (4, {})


def test_a_run_has_reviewers_of_its_own_which_hear_that_tones_are_no_speech(tmp_path: Path) -> None:
    """The whole way with real models, which hear no word in the fake engine's tones, whatever the take."""
    recording = next(each for each in find_recordings()["en"] if each.name == "agent-newlocation")
    text = "A text that is long enough for a take of more than a second, so that it can be judged."
    batch = {
        "speakers": [{"id": "anna", "reference": {"audio": "anna.wav", "text": recording.text}, "texts": [text] * 2}]
    }
    (tmp_path / "anna.wav").write_bytes(recording.path.read_bytes())
    (tmp_path / "batch.json").write_text(json.dumps({**batch, "generation": {"attempts": 2}}))
    run = ["run", "batch.json", "--engine", "fake"]
    refused = run_cloner(*run, "--review", "all", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2,
        "the batch is to be reviewed, and a run has reviewers of its own: add --reviewers 1, or --review none",
    )
    ended = run_cloner(*run, "--reviewers", "1", cwd=tmp_path, env={"CLONER_RECOGNISER": str(MODEL)})
    assert ended.returncode == 0, ended.stderr
    result = BatchResult.model_validate_json(ended.stdout)
    assert (result.generated, result.review.mode, result.review.state) == (2, "suspects", "complete")
    assert (result.review.reviewed, result.review.failed, result.review.not_reviewed) == (2, 2, 0)
    assert all({*BAD_CHECKS} <= {*suspect.failed} for suspect in result.suspects.values())
    reviews = (tmp_path / ".cloner" / result.batch_id / "reviews.ndjson").read_text()
    assert reviews.count('"take":{') == 4
    assert reviews.count('"heard"') == 1
    _check_redo(tmp_path, result.batch_id)


def _check_redo(out: Path, batch_id: str) -> None:
    """A redo on this box has reviewers, too."""
    redo = ["redo", batch_id, "--segment", "1", "--out", "."]
    without = run_cloner(*redo, cwd=out)
    assert BatchResult.model_validate_json(without.stdout).review.mode == "none"
    ended = run_cloner(*redo, "--reviewers", "1", cwd=out, env={"CLONER_RECOGNISER": str(MODEL)})
    assert ended.returncode == 0, ended.stderr
    result = BatchResult.model_validate_json(ended.stdout)
    assert (result.generated, result.review.mode, result.review.state) == (1, "suspects", "complete")
    assert (result.review.reviewed, result.review.failed, result.review.not_reviewed) == (1, 1, 0)
    assert {*BAD_CHECKS} <= {*result.suspects[1].failed}
