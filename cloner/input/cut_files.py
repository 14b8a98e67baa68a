"""Whether an audio file has lost its end. libsndfile reads most files that were cut as if they were whole.

Of a WAV file the header says how long it is. An Ogg file (Vorbis, Opus) ends with a page that is marked as the last one
(RFC 3533, 6). An MP3 file has the number of its frames in a header of its first frame, if its encoder has written that.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

UNKNOWN_SIZE = 0x7FFF0000
"""What a program that writes WAV into a pipe gives for the size, or more: it cannot go back to correct it."""

OGG_HEADER_BYTES = 27
"""Of a page, before the table of its segments."""

MOST_PAGE_BYTES = OGG_HEADER_BYTES + 255 + 255 * 255

LAST_PAGE = 4
"""The flag of the page that ends a stream."""

XING_WITHIN = 256
"""Bytes of an MP3 file's first frame within which its header begins, if it has one."""


def missing_end(path: Path, size: int) -> str:
    """What shows that the end of the file, which has `size` bytes, is missing; empty if nothing does. Raises
    `OSError`."""
    if (whole := _wav_bytes(path)) > size:
        return f"it has {size} bytes of the {whole} that its header says"
    return "" if _has_last_page(path, size) else "the last page of its Ogg stream is missing, or cut"


def counts_frames(path: Path) -> bool:
    """Whether an MP3 file says how many frames it has, so that its length is no estimate. Raises `OSError`."""
    with path.open("rb") as file:
        head = file.read(10)
        tag_bytes = 0
        if head[:3] == b"ID3" and len(head) == 10:
            for byte in head[6:]:
                tag_bytes = tag_bytes << 7 | byte & 0x7F
            tag_bytes += len(head)
        file.seek(tag_bytes)
        return re.search(b"Xing|Info", file.read(XING_WITHIN)) is not None


def _wav_bytes(path: Path) -> int:
    """The bytes of a WAV file up to the end of its samples, by its header; 0 if it does not say, or is none."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        # Not that of the whole, in `head`, which may be too large by 8: some programs count the bytes before it, too.
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return file.tell() + size if size < UNKNOWN_SIZE else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    size = int.from_bytes(head[4:8], "little")
    return 8 + size if size < UNKNOWN_SIZE else 0


def _has_last_page(path: Path, size: int) -> bool:
    """Whether the last page of an Ogg file is there as a whole. True if it is no such file."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return True
        file.seek(max(0, size - MOST_PAGE_BYTES))
        end = file.read()
    # The four letters may also be within a page.
    return any(_is_last_page(end[found.start() :]) for found in re.finditer(b"OggS", end))


def _is_last_page(data: bytes) -> bool:
    """Whether `data` begins with the whole page that ends a stream."""
    if len(data) < OGG_HEADER_BYTES or not data[5] & LAST_PAGE:
        return False
    segments = data[OGG_HEADER_BYTES - 1]
    table = data[OGG_HEADER_BYTES : OGG_HEADER_BYTES + segments]
    return len(data) >= OGG_HEADER_BYTES + segments + sum(table)
