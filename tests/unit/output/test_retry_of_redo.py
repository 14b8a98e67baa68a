"""A redo of which segments have failed is retried: a later take that is there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.collector.result import gather
from cloner.errors import UsageError
from cloner.output.kept_batch import KeptBatch, read_part
from cloner.output.record import Record
from cloner.protocol.messages import Manifest
from cloner.protocol.queries import PartRequest
from tests.support.edited_batches import LINES, batch, speak
from tests.unit.output.test_redo import close, redo_of, speak_takes


def close_with_result(root: Path, manifest: Manifest) -> None:
    """As `close`, with what a retry reads."""
    record = Record(root, manifest.batch_id)
    record.refresh()
    result = gather(manifest, record, root, cancelled=False, progress={}, now=2.0)
    KeptBatch(record.folder).write(manifest)
    record.folder.write("result.json", [result.to_json().encode()])
    close(root, manifest)


def test_a_redo_that_is_retried_twice_replaces_no_good_take(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    failing = redo_of("failing")
    speak_takes(tmp_path, failing, code="cut_off")
    close_with_result(tmp_path, failing)
    request = PartRequest(batch_id="failing", failed=True)
    for name, code in (("retry", "cut_off"), ("again", "")):
        part = read_part(tmp_path, request)
        assert [row.segment for row in part.speakers[0].segments] == [1]
        speak_takes(tmp_path, redo_of(name), code=code)
    with pytest.raises(UsageError, match="later takes of all that failed in batch failing are there: "):
        read_part(tmp_path, request)
    assert read_part(tmp_path, PartRequest(batch_id="failing", segments=[1])).total == 1, "a redo is asked for"


def test_a_redo_that_is_cancelled_before_it_is_opened_is_retried_as_a_whole(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    cancelled = redo_of("cancelled")
    close_with_result(tmp_path, cancelled)
    assert read_part(tmp_path, PartRequest(batch_id="cancelled", failed=True)).total == 1
