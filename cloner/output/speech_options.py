"""The options with which earlier batches were generated: they tell why audio is generated again."""

from __future__ import annotations

from pathlib import Path

from cloner.batch import SpeechOptions
from cloner.errors import Damaged
from cloner.output.kept_batch import KeptBatch
from cloner.output.own_folder import OwnFolder

MOST_EARLIER = 5
"""Most options that a batch is compared with."""


def earlier_options(root: Path) -> list[SpeechOptions]:
    """The options of the batches under an output root, each once, those of the latest batch first: at most
    `MOST_EARLIER`. What cannot be read is left out. Raises `OSError`."""
    found: list[SpeechOptions] = []
    # Their ids sort by time.
    for folder in reversed(OwnFolder(root).inner_folders()):
        try:
            options = KeptBatch(folder).head().speech
        except (OSError, Damaged):
            continue
        if options not in found:
            found.append(options)
        if len(found) == MOST_EARLIER:
            break
    return found
