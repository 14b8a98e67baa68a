"""What a command prints at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from cloner.cli.results import print_result, summary
from cloner.protocol.results import BatchResult, ErrorRateResult, ReviewResult, SegmentError, Suspect

RESULT = BatchResult(
    batch_id="b-1",
    total=6,
    generated=2,
    failed=4,
    cancelled=False,
    out_dir="/data/out",
    results={0: "anna/0001.wav", 1: "anna/x/0002.wav"},
    errors={n: SegmentError(speaker="anna", output=f"anna/{n}.wav", code="output", message="No.") for n in range(2, 6)},
    reused=1,
    elapsed_s=5000.0,
    audio_s=4000.0,
    frames=1,
    workers={},
)


def test_the_last_lines_on_a_terminal_say_what_failed_where_the_audio_is_and_what_to_do() -> None:
    assert summary(RESULT, "`cloner retry b-1`").splitlines() == [
        "2 of 6 segments are generated, 1 of them by earlier runs: 1 h 7 min of audio, in 1 h 23 min",
        "Audio:   /data/out/anna",
        "Report:  /data/out/.cloner/b-1/report.html",
        "Failed:  anna/2.wav: No.",
        "Failed:  anna/3.wav: No.",
        "Failed:  anna/4.wav: No.",
        "         and 1 more; the report has all",
        "Next:    `cloner retry b-1` generates again what failed",
    ]


def test_what_can_never_be_spoken_is_to_be_changed() -> None:
    silent = SegmentError(speaker="anna", output="anna/2.wav", code="nothing_to_speak", message="No.")
    write = "Next:    write what is to be spoken, or leave it out, where a text has no letter and no digit"
    alone = RESULT.model_copy(update={"errors": {2: silent}, "failed": 1})
    assert [line for line in summary(alone, "the same command").splitlines() if "Next" in line] == [write]
    both = RESULT.model_copy(update={"errors": {**RESULT.errors, 2: silent}})
    assert [line for line in summary(both, "the same command").splitlines() if "Next" in line] == [
        "Next:    the same command generates again what failed",
        write,
    ]


def test_suspects_are_counted_and_can_be_redone() -> None:
    suspects = {0: Suspect(speaker="anna", output="anna/0001.wav", failed=["pause"])}
    assert summary(RESULT.model_copy(update={"suspects": suspects}), "").splitlines()[-1] == (
        "Suspect: 1 may have gone wrong: mark those that did in the report, then `cloner redo b-1 --marked FILE`"
    )
    lines = summary(RESULT.model_copy(update={"suspects": suspects}), "", Path("my out")).splitlines()
    assert lines[-1].endswith("`cloner redo b-1 --marked FILE --out 'my out'`")


@pytest.mark.parametrize(("is_terminal", "as_json"), [(False, False), (False, True), (True, True), (True, False)])
def test_the_result_is_json_where_a_program_reads_it(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], is_terminal: bool, as_json: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    with pytest.raises(typer.Exit) as ended:
        print_result(RESULT, as_json=as_json)
    assert ended.value.exit_code == 1
    printed = capfdbinary.readouterr().out
    if is_terminal and not as_json:
        assert printed.startswith(b"2 of 6 segments")
    else:
        assert json.loads(printed)["batch_id"] == "b-1"


def test_the_review_has_a_line_of_its_own() -> None:
    rate = ErrorRateResult(estimate=0.012, low=0.004, high=0.03, sampled=200)
    review = ReviewResult(mode="suspects", state="complete", reviewed=210, failed=2, error_rate=rate)
    lines = summary(RESULT.model_copy(update={"review": review}), "cloner retry b-1").splitlines()
    assert lines[-2] == (
        "Review:  complete, 210 reviewed, 2 of them fail; about 1.2% of all have gone wrong (0.4% to 3.0%)"
    )
    known = rate.model_copy(update={"low": 0.012, "high": 0.012})
    lines = summary(
        RESULT.model_copy(update={"review": review.model_copy(update={"error_rate": known})}), ""
    ).splitlines()
    assert lines[-1].endswith("; 1.2% of all have gone wrong")
    without = summary(RESULT.model_copy(update={"review": review.model_copy(update={"words_not_compared": 7})}), "")
    assert "2 of them fail, words not all compared in 7; about 1.2%" in without
    unknown = review.model_copy(update={"words_not_compared": 7, "unknown_language": 4})
    line = summary(RESULT.model_copy(update={"review": unknown}), "")
    assert "words not all compared in 7 (in 4 the recogniser does not know the language); about 1.2%" in line
    ended = ReviewResult(mode="all", state="incomplete")
    lines = summary(RESULT.model_copy(update={"review": ended}), "").splitlines()
    assert lines[-1] == "Review:  incomplete, 0 reviewed, 0 of them fail"
