"""A worker is killed while threads of it encode audio that its engine has generated."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from cloner import Client
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.crashes import loads, unfinished_files
from tests.support.module_patches import ModulePatcher
from tests.support.processes import LaunchLoaded

pytestmark = pytest.mark.slow


def test_what_was_not_written_is_generated_again(
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    patch_module(
        "cloner.worker.encoding",
        """
        encode = module.encode
        def dying(answer, *others):
            if answer.segment == 3 and once("died"):
                die()
            return encode(answer, *others)
        module.encode = dying
        """,
    )
    launch_loaded(fake_slots=4)
    batch = write_batch(tmp_path, [6], audio={"rate": 16_000, "loudness": -20})
    batch.write_text(batch.read_text().replace(".wav", ".ogg"))
    result = client.submit(batch).wait(timeout=200)
    assert set(result.results) == set(range(6))
    for output in result.results.values():
        info = soundfile.info(settings.out_dir / output)
        assert (info.subtype, info.samplerate) == ("VORBIS", 16_000)
    assert unfinished_files(settings) == []
    assert loads(client) == 2
