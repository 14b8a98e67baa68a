"""What a worker says of the speakers of a chunk, in the words that people grep for."""

from __future__ import annotations

from cloner.logs import get_logger
from cloner.output.record import Record
from cloner.protocol.messages import ChunkMessage, SpeakerPart
from cloner.worker.runtime import Runtime


class ChunkLog:
    """Says how far a chunk's speakers are. The record counts, over chunks and crashes.

    Chunks of the shared queue were dealt to nobody: they are counted together over all workers, and each count is
    said once, by the worker that comes to it first.
    """

    def __init__(self, runtime: Runtime, message: ChunkMessage, record: Record) -> None:
        self._runtime = runtime
        self._message = message
        self._record = record
        self._counted: dict[str, int] = {}
        """Speaker -> finished texts, when it was last looked."""

    def begin(self, part: SpeakerPart) -> None:
        """The speaker's first text here is about to be spoken; not again in its later chunks, nor after a crash."""
        assignment = self._message.assignment
        if part.id not in self._counted and not self._record.has_from(self._runtime.name, assignment, part.id):
            log = get_logger().bind(speaker=part.id)
            log.info(f"Processing Speaker {part.id} ({part.place}/{self._message.speakers})")
            log.info(f"This speaker has {part.texts} texts")
        self._counted[part.id] = self._record.finished(assignment, part.id)

    def count(self, part: SpeakerPart) -> None:
        """One more of the speaker's texts is finished, well or not."""
        split = self._message.shared and len(part.segments) < part.texts
        if split:
            self._record.refresh()
        log = get_logger().bind(speaker=part.id)
        before = self._counted[part.id]
        after = self._counted[part.id] = self._record.finished(self._message.assignment, part.id)
        for count in range(before + 1, after + 1):
            if (count == 1 or count % 5 == 0) and not (split and self._is_said(f"{part.id}: {count}")):
                log.info(f"Speaker {part.id} progress: {count}/{part.texts}")
        if before < after == part.texts and not (split and self._is_said(f"{part.id}: completed")):
            generated = self._record.generated(self._message.assignment, part.id)
            if generated:
                log.info(f"✅ Completed Speaker {part.id}: {generated} segments")
            else:
                log.warning(f"❌ Speaker {part.id}: no segment generated, {part.texts} failed")

    def all_done(self) -> bool:
        """Whether nothing is left of the assignment, which is said."""
        assignment, texts = self._message.assignment, self._message.texts
        shared = self._message.shared
        if shared:
            self._record.refresh()
        if self._record.finished(assignment) < texts:
            return False
        # Chunks that were spoken by earlier batches find all done, one after another.
        news = self._runtime.is_news(f"{self._message.batch_id}/{assignment}: all done")
        if news and not (shared and self._is_said("all done")):
            everyone = ", all workers together" if shared else ""
            get_logger().info(f"✅ All done! Processed {self._record.generated(assignment)}/{texts} segments{everyone}")
        return True

    def _is_said(self, what: str) -> bool:
        """Whether another worker has said it; if not, this one is about to."""
        return not self._runtime.first_to_say(self._message.batch_id, what)
