"""A closed batch on the disk, made without engines: audio, peaks, record, the kept batch and its references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cloner.audio import SAMPLE_RATE
from cloner.audio_bytes import encode_audio, to_16_bits
from cloner.batch import AudioFormat, ReferenceKind
from cloner.collector.result import gather
from cloner.output.audio_files import OutputRoot
from cloner.output.audio_peaks import peaks_of
from cloner.output.kept_batch import KeptBatch
from cloner.output.kept_references import KeptReferences
from cloner.output.peaks import PeaksWriter
from cloner.output.record import Record, RecordWriter, batch_folder
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.protocol.references import reference_key
from cloner.protocol.results import BatchResult, SegmentResult
from cloner.report.report_file import REPORT, report_file
from tests.support.manifests import manifest
from tests.support.records import segment_result
from tests.support.speech import speech

WORKER = "cpu.0@box"

Change = Callable[[SegmentResult], SegmentResult]


def _always(found: dict[str, bytes]) -> Callable[[Sequence[str]], dict[str, bytes]]:
    return lambda _: found


def close_batch(
    out: Path,
    texts: Mapping[str, Sequence[str]],
    batch_id: str = "20261127-040000-abcdef",
    folder: str = "book",
    change: Change = lambda line: line,
    write: Callable[[Manifest, Record], None] | None = None,
) -> tuple[BatchResult, Record]:
    """Generate a batch of one recording a speaker and these texts, with a few sounds that repeat; `change` is what each
    line becomes. `write` writes record and audio in another way."""
    root = OutputRoot(out)
    speakers, index = [], 0
    for name, own in texts.items():
        recording = encode_audio(speech(SAMPLE_RATE, seed=len(name)), SAMPLE_RATE, AudioFormat.FLAC)
        reference = ReferenceRow(
            kind=ReferenceKind.AUDIO, digest=reference_key(ReferenceKind.AUDIO, recording), text=f"I am {name}."
        )
        KeptReferences(root.root).keep([reference], _always({reference.digest: recording}))
        rows = [(n, text, f"{folder}/{n}.wav", n) for n, text in enumerate(own, index)]
        index += len(own)
        speakers.append(SpeakerRow(id=name, reference=reference, segments=rows))
    found = manifest().model_copy(
        update={
            "batch_id": batch_id,
            "source": "book.yaml",
            "speakers": speakers,
            "chunks": [],
            "submitted_at": 1795752000.0,
        }
    )
    KeptBatch(batch_folder(root.root, batch_id)).write(found)
    record = Record(root.root, batch_id)
    if write:
        write(found, record)
    else:
        _write_audio(root, found, record, change)
    return gather(found, record, root.root, cancelled=False, progress={}, now=1795752042.0), record


def _write_audio(root: OutputRoot, found: Manifest, record: Record, change: Change) -> None:
    """The files of all segments, with their peaks and lines."""
    sounds = [to_16_bits(speech(SAMPLE_RATE, syllables, seed=syllables)) for syllables in (5, 9, 14, 20)]
    peaks = [peaks_of(sound) for sound in sounds]
    kept = PeaksWriter(record.folder, WORKER)
    with RecordWriter(record, WORKER) as lines:
        for speaker in found.speakers:
            for index, _, output, _ in speaker.segments:
                sound = index * 7 % len(sounds)
                line = segment_result(
                    index,
                    speaker=speaker.id,
                    output=output,
                    key=f"{index:064x}",
                    worker=WORKER,
                    audio_s=len(sounds[sound]) / SAMPLE_RATE,
                )
                line = change(line)
                if line.generated:
                    written = root.write_audio(output, sounds[sound], SAMPLE_RATE)
                    kept.append(written.digest, peaks[sound])
                    line = replace(line, size=written.size, mtime_ns=written.mtime_ns, digest=written.digest)
                lines.append(line)
    kept.close()


def write_report(out: Path, result: BatchResult, record: Record) -> Path:
    """The report of a closed batch; returns its path."""
    pieces = report_file(out.resolve(), result, "main", record.results)
    record.folder.write(REPORT, (piece.encode() for piece in pieces))
    return record.folder.path / REPORT
