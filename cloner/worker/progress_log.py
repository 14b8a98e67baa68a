"""The log lines about the speakers of a chunk. Their wording is public: people search logs for it."""

from __future__ import annotations

import threading

from cloner.events import Event
from cloner.logs import log_event
from cloner.output.record import Record
from cloner.protocol.messages import ChunkMessage, SpeakerSegments
from cloner.worker.worker_process import WorkerProcess


class ProgressLog:
    """Logs the progress of a chunk's speakers. Counts are the record's, over all chunks of the assignment and all
    crashes."""

    def __init__(self, worker: WorkerProcess, message: ChunkMessage, record: Record) -> None:
        self._worker = worker
        self._message = message
        self._record = record
        self._lock = threading.Lock()
        self._counted: dict[str, int] = {}
        """Speaker -> texts that were finished when they were last counted."""

    def speaker_started(self, speaker: SpeakerSegments) -> None:
        """Log that the speaker's first text is about to be generated; not again in later chunks, or after a crash.

        May be called from any thread, and for every text.
        """
        with self._lock:
            if speaker.id in self._counted:
                return
            assignment = self._message.assignment
            if not self._record.has_from(self._worker.name, assignment, speaker.id):
                # An engine's threads have not the context of the chunk's task.
                batch_id, speakers = self._message.batch_id, self._message.speakers
                log_event(
                    Event.SPEAKER_STARTED, batch=batch_id, speaker=speaker.id, place=speaker.position, speakers=speakers
                )
                log_event(Event.SPEAKER_TEXTS, batch=batch_id, speaker=speaker.id, texts=speaker.texts)
            self._counted[speaker.id] = self._record.finished(assignment, speaker.id)

    def segment_finished(self, speaker: SpeakerSegments) -> None:
        """Log the speaker's progress, now that the record has another of its texts, generated or failed."""
        before = self._counted[speaker.id]
        after = self._counted[speaker.id] = self._record.finished(self._message.assignment, speaker.id)
        for count in range(before + 1, after + 1):
            if count == 1 or count % 5 == 0:
                log_event(Event.SPEAKER_PROGRESS, speaker=speaker.id, finished=count, texts=speaker.texts)
        if before < after == speaker.texts:
            generated = self._record.generated(self._message.assignment, speaker.id)
            if generated:
                log_event(Event.SPEAKER_COMPLETED, speaker=speaker.id, generated=generated)
            else:
                log_event(Event.SPEAKER_FAILED, speaker=speaker.id, texts=speaker.texts)

    def assignment_finished(self) -> bool:
        """Whether nothing is left of the assignment; if so, that is logged, once."""
        assignment, texts = self._message.assignment, self._message.texts
        if self._record.finished(assignment) < texts:
            return False
        # If earlier batches have generated them, each of the assignment's chunks finds all of it finished.
        if self._worker.mark_logged(f"{self._message.batch_id}/{assignment}: all done"):
            log_event(Event.WORKER_DONE, generated=self._record.generated(assignment), texts=texts)
        return True
