"""The models as they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from speechmos.dnsmos import DNSMOS

from cloner.audio import Audio
from cloner.errors import MissingPackage
from cloner.review.heard import Heard
from cloner.review.likeness import Embedder
from cloner.review.models import ReviewModels
from cloner.review.naturalness import TO_OPINION, NaturalnessModel
from tests.support.speech import speech

RATE = 22_050


@pytest.fixture(scope="module")
def models() -> ReviewModels:
    return ReviewModels()


@pytest.mark.slow
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(1, np.float32),
        np.zeros(2 * RATE, np.float32),
        np.full(2 * RATE, np.nan, np.float32),
    ],
    ids=["none", "one", "silence", "nan"],
)
def test_what_is_no_sound_has_no_voice(models: ReviewModels, samples: Audio) -> None:
    assert models.hear(samples, RATE).voice is None


@pytest.mark.slow
def test_a_short_take_has_no_naturalness(models: ReviewModels) -> None:
    assert models.hear(speech(RATE)[: RATE // 2], RATE).naturalness is None
    assert models.hear(np.full(2 * RATE, np.nan, np.float32), RATE) == Heard(None, None)


def test_scores_are_of_the_polynomial_that_speechmos_has() -> None:
    raw = np.linspace(0, 5, 11)
    _, _, overall = DNSMOS.get_polyfit_val(None, raw, raw, raw, False)
    assert np.polyval(TO_OPINION, raw) == pytest.approx(overall)


@pytest.mark.parametrize(
    ("model", "package"),
    [(Embedder, "resemblyzer"), (NaturalnessModel, "onnxruntime"), (NaturalnessModel, "speechmos")],
)
def test_a_missing_package_is_a_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, model: type[object], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=rf"{package}.*pip install --no-deps -r ops/review\.txt"):
        model()


def test_nothing_of_them_is_imported_before_they_are_used() -> None:
    code = (
        "import cloner.review.judge, sys; print(*{'torch', 'resemblyzer', 'onnxruntime', 'librosa'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (found.stdout.strip(), found.returncode) == ("", 0), found.stderr
