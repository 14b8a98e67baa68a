"""`make demo` without its setup."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.events import Event
from tests.support.log_lines import find_lines

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "ops" / "scripts" / "demo.py"


def test_the_demo_speaks_every_segment_audibly(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, str(DEMO), str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert find_lines(ran.stderr.splitlines(), Event.BATCH_WARNING, source=tmp_path / "batch.yaml") == []
    result = json.loads(ran.stdout)
    assert (result["total"], result["generated"]) == (46, 46)
    for output in result["results"].values():
        audio, rate = soundfile.read(tmp_path / "out" / output, dtype="float32")
        assert rate == 44_100
        assert len(audio) >= rate / 2
        assert 20 * np.log10(np.sqrt(np.mean(np.square(audio))) + 1e-12) > -60, output
