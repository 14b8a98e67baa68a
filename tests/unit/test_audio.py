from __future__ import annotations

import numpy as np
import pytest

from cloner.audio import check_codes, check_recording
from cloner.batch import CODEBOOK_SIZES
from cloner.errors import BadReference

HIGHEST = np.array(CODEBOOK_SIZES, dtype=np.int32)[:, None] - 1


def test_the_lowest_and_the_highest_codes_pass() -> None:
    check_codes(np.zeros((10, 1), dtype=np.int32))
    check_codes(HIGHEST)


@pytest.mark.parametrize("shape", [(9, 4), (11, 4), (10,), (1, 10, 4), (10, 0)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadReference, match=r"\[10, frames\] is needed"):
        check_codes(np.zeros(shape, dtype=np.int32))


@pytest.mark.parametrize(("book", "size"), list(enumerate(CODEBOOK_SIZES)))
def test_a_code_outside_its_codebook_is_refused_and_named(book: int, size: int) -> None:
    codes = np.zeros((10, 3), dtype=np.int32)
    codes[book, 1] = size
    with pytest.raises(BadReference, match=rf"codebook {book} go from 0 to {size}; the codec has 0 to {size - 1}"):
        check_codes(codes)
    codes[book, 1] = -1
    with pytest.raises(BadReference, match=f"codebook {book} go from -1 to 0"):
        check_codes(codes)


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_recordings_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadReference, match="mono samples are needed"):
        check_recording(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("sample", [np.nan, np.inf])
def test_recordings_with_samples_that_are_no_numbers_are_refused(sample: float) -> None:
    check_recording(np.zeros(4, dtype=np.float32))
    with pytest.raises(BadReference, match="NaN or infinity"):
        check_recording(np.array([0, sample, 0], dtype=np.float32))
