from __future__ import annotations

from cloner.protocol.results import BatchResult

EVIL = "a\x1b[2J\x9b\u202e\nb"
SHOWN = "a\\x1b[2J\\x9b\\u202e b"


def test_a_result_that_another_program_wrote_has_no_control_characters() -> None:
    error = {"speaker": EVIL, "output": EVIL, "code": EVIL, "message": EVIL}
    result = BatchResult.model_validate(
        {
            "batch_id": EVIL,
            "source": EVIL,
            "total": 2,
            "generated": 1,
            "failed": 1,
            "cancelled": False,
            "out_dir": EVIL,
            "results": {0: EVIL},
            "errors": {1: error},
            "elapsed_s": 1,
            "audio_s": 1,
            "frames": 1,
            "workers": {EVIL: 1},
            "speakers": {EVIL: {"texts": 2, "generated": 1, "failed": 1, "audio_s": 1}},
            "engine": EVIL,
            "fingerprint": EVIL,
        }
    )
    read = BatchResult.unpack(result.pack())
    assert read.to_json().isprintable()
    assert (read.errors[1].message, read.source, list(read.workers), list(read.speakers)) == (
        SHOWN,
        SHOWN,
        [SHOWN],
        [SHOWN],
    )
