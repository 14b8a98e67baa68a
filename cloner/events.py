"""Every line that the product logs: its id, its level and its text.

The id is the member's name in lower case; JSON log lines carry it, so programs and tests need not match sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from logging import DEBUG, ERROR, INFO, WARNING


class Event(Enum):
    """A kind of log line: a template with ``{fields}``, and a level if that is not INFO."""

    # Planning a box.
    GPU_FOUND = "[{place}] {name}, Total Memory: {total_gb:.2f} GB"
    GPU_ROOM = "[{place}] Can run {room} workers (Available: {available_gb:.2f} GB)"
    GPU_MAY_NOT_FIT = (
        "[{place}] {workers} workers take about {needed_gb:.2f} GB, and only {free_gb:.2f} of {total_gb:.2f} GB are "
        "free: they may not fit",
        WARNING,
    )
    GPU_WITHOUT_MIG_INSTANCE = "[GPU {index}] is left out: MIG is on, but the card has no MIG instance", WARNING
    GPU_UNREADABLE = "[GPU {index}] is left out, NVML says: {error}", WARNING
    NVML_MISSING = (
        "[Main] No GPU was looked for: nvidia-ml-py is not installed; `pip install nvidia-ml-py`",
        WARNING,
    )
    GPU_READING_MISSED = "GPU reading missed: {error}", DEBUG
    WORKERS_PLANNED = "[Main] Using {workers} parallel workers across {gpus} GPU(s)"
    WORKERS_ON_PLACE = "[Main] {place}: {workers} workers"

    # Takes that are checked.
    TAKES_NOT_LISTED = (
        "Audio files in {folder} that the list does not name, and that are not checked: {count}, as {some}",
        WARNING,
    )

    # A batch, as its client sees it.
    BATCH_WARNING = "{source}: {warning}", WARNING
    MORE_BATCH_WARNINGS = "{source}: {count} more warnings", WARNING
    TRANSCRIPT_WRITTEN = (
        "{recording} has no transcript; recognised ({language}, {certainty:.0%}): {text}; correct it in {transcript},"
        " which is used from now on",
        WARNING,
    )
    TOTAL_TASKS = "[Main] Total tasks: {total}"
    SPEAKERS = "[Main] Speakers: {speakers}"
    SPEAKER_ASSIGNMENT = "[Main] Speaker assignment:"
    WORKER_ASSIGNMENT = "  Worker {index}: {speakers} speakers (IDs: [{ids}]), {texts} texts"
    BATCH_SUBMITTED = "[Main] Batch: {batch}"
    SEGMENT_NAMED = "[Main] Segment {segment} is {output}, of Speaker {speaker}: {text}"
    MORE_SEGMENTS_NAMED = "[Main] and {count} more segments"
    PROGRESS = "[Main] Progress: {finished}/{total} segments{details}"
    WAITING_FOR_WORKERS = "[Main] Waiting for all workers to complete..."
    COLLECTING_RESULTS = "[Main] Collecting results..."
    BATCH_FINISHED = "[Main] All done! Generated {generated}/{total} segments"
    REPORT_WRITTEN = "[Main] Batch {batch}: suspects: {suspects}, report: {report}"
    NOTHING_LEFT = "[Main] All segments are there: no model is loaded"
    LEFTOVER = "[Main] Files of earlier versions of this batch: {count}, as {some}; --prune removes them"
    PRUNED = "[Main] Files of earlier versions of this batch, removed: {count}"
    OUT_NOT_WRITABLE = "[Main] The output folder {folder} cannot be written by this user: a run is refused", WARNING
    RUN_STOPPED = "[Main] Stopped: {generated}/{total} segments are in {folder}; the same command goes on from there"
    WAIT_ENDED = (
        "[Main] Batch {batch} goes on without you: `cloner wait {batch}` waits again, `cloner cancel {batch}` stops it"
    )
    MISSPELT_SETTING = "[Main] {name} is no setting: {meant} is", WARNING
    COPY_NOT_KEPT = "[Main] The run's log is not kept from here on: {error}"
    RUN_LOG_NOT_KEPT = "[Main] {path} cannot be written: {error}"
    SPEED_NOT_KEPT = "[Main] How fast this run was is not kept for `cloner plan`: {error}"
    SPEED_NOT_READ = "How fast this box is cannot be read, so the next run measures it: {error}", WARNING
    REDIS_NOT_CLEANED = "[Main] What this run has put into Redis stays there, under {fleet}: {error}"
    NO_WORKER_ALIVE = (
        "[Main] No worker is alive: the batch waits until one is; start the fleet with `launcher up`",
        WARNING,
    )
    WORKERS_ALIVE_AGAIN = "[Main] {workers} workers are alive again"
    NO_COLLECTOR_ALIVE = (
        "[Main] No collector is alive: the batch waits until one is; start it with `launcher up`",
        WARNING,
    )
    COLLECTOR_ALIVE_AGAIN = "[Main] A collector is alive again"
    DAMAGED_PASSED_OVER = ("what Redis holds at {key} is passed over: {reason}", WARNING)
    OUTPUTS_NOT_COMPARED = (
        "batch {batch} cannot be read here: its outputs were not compared with this one's",
        WARNING,
    )

    # The launcher.
    LAUNCHING_COLLECTOR = "[Main] Launching the collector..."
    LAUNCHING_WORKERS = "[Main] Launching {workers} workers..."
    LAUNCHING_WORKER = "[Main] Launching Worker {index} on {place}"
    LAUNCHING_REVIEWERS = "[Main] Launching {reviewers} reviewers..."
    LAUNCHING_REVIEWER = "[Main] Launching Reviewer {index}"
    BOX_IS_HELD = '[Main] Box "{box}" is held by {holder}: waiting whether it lives'
    RESTARTING = "[Main] {title} {reason}; starting it again in {delay_s:g} s"
    KILLING_UNHEALTHY = "[Main] {title} {reason}: killing it"
    WORKER_GIVEN_UP = "[Main] {title} {reason}; the others take over its queue"
    REVIEWER_GIVEN_UP = "[Main] {title} {reason}; takes are reviewed without it", WARNING
    STOPPING = "[Main] {signal}: stopping within {stop_s:g} s; a second signal kills at once"
    KILLING = "[Main] Killing {processes}"
    KILLED_BUT_ALIVE = "[Main] Killed, but still there: {processes}"
    MESSAGES_REQUEUED = "[Main] The messages of {title} are back in their queues: {count} unacknowledged"
    MESSAGES_TAKEN_OVER = "[Main] {holder} is gone, its messages go to {queue}: {count}"
    GONE_FOR_GOOD = "[Main] {holder} is gone for good: what was registered of it is removed"
    REGISTRY_UNREACHABLE = (
        "[Main] Redis cannot be used: {error}; waiting and trying again until it can, and meanwhile the registry has"
        " no news of this box"
    )
    REGISTRY_REACHABLE = "[Main] Redis can be used again"
    DEAD_LETTERS = "[Main] Messages in the dead-letter list: {count}; see `launcher dead-letters`", WARNING
    METRICS_SERVED = "[Main] Metrics of fleet {fleet} are at http://{host}:{port}/metrics"

    # A worker, or a collector.
    STARTING = "Starting on {device}"
    LOADING_TEXT2SEMANTIC = "Loading Text2Semantic model..."
    LOADING_DAC = "Loading DAC model..."
    CACHE_PLANNED = (
        "Cache: {slots} slots of {positions} positions, {slots_gb:.2f} GB, and {prefixes_gb:.2f} GB for references"
    )
    PAGES_PLANNED = "Cache: {slots} slots, {pages} pages of {positions} positions, {cache_gb:.2f} GB"
    CODEC_INEXACT = "The codec in {dtype} is {found_db:.0f} dB from fp32, less than {min_db:.0f}", WARNING
    CODEC_NOT_FINITE = (
        "Segment {segment}: the codec's output in {dtype} is not finite: decoding it in torch.float32 on the CPU",
        WARNING,
    )
    KERNELS_UNAVAILABLE = (
        "The kernels for this GPU cannot be compiled, so it is several times slower: {missing}",
        WARNING,
    )
    KERNELS_TRIED = (
        "Compiling and trying the kernels for this GPU: once for each kind of GPU, driver and version, at most"
        " {limit_s:.0f} s"
    )
    KERNEL_FORK_SERVER_LOST = (
        "The process that the kernels' processes are forked from is lost ({reason}): another one takes its place",
        WARNING,
    )
    KERNELS_TRIED_AGAIN = (
        "Some kernels could not be tried to the end ({reason}): trying them once more, with one process that compares",
        WARNING,
    )
    KERNELS_REPLACED = "Kernels that do not work on this GPU are replaced by slower functions: {kernels}", WARNING
    KERNEL_VERDICT_NOT_KEPT = (
        "{path} cannot be written, so the kernels are tried again at the next start: {error}",
        WARNING,
    )
    MODELS_LOADED = "Models loaded! Starting generation..."
    LOAD_FAILED = "Load failed: {error}", ERROR
    ENGINE_RELOADING = "{error}: loading it again", ERROR
    WORKER_BROKEN = "This worker is given up: {error}", ERROR
    REVIEWER_BROKEN = "This reviewer is given up: {error}", ERROR
    OUT_OF_MEMORY = "Out of memory with {slots} slots: going on with {fewer}", WARNING
    MEMORY_AGAIN = "There may be memory again: going on with {slots} slots instead of {before}"
    NO_MEMORY_YET = "There is no memory for {slots} slots yet: going on with {fewer}"
    ENCODED_ON_CPU = "The GPU has no memory left to encode a recording: encoding it on the CPU"
    ENCODING_OUT_OF_MEMORY = "Out of memory while {recordings} recordings were encoded: encoding each alone", WARNING
    CODEC_OUT_OF_MEMORY = "Out of memory in the codec: going on with {frames} frames at once", WARNING
    CODEC_MEMORY_AGAIN = "There may be memory again for the codec: trying {frames} frames at once"
    REVIEWER_READY = "Models loaded! Waiting for takes..."
    TAKE_NOT_HEARD = "Batch {batch}: {what} is not heard: {error}", WARNING
    CHILD_DIED = "The process with the model died ({how}): its work goes back to the queue", ERROR
    CHILD_NOT_STARTED = (
        "The child process died while it started ({error}): this process ends, to be started again",
        ERROR,
    )
    BOX_TAKEN_OVER = "Another launcher has taken over this box: ending at once", ERROR
    NOT_STOPPED = "Not stopped within {stop_s:g} s (does Redis not answer?): ending at once", ERROR
    REDIS_AWAY = "Redis cannot be used ({error}): trying again until it can", WARNING
    FLEET_NOT_SEEN = (
        'Redis cannot be asked ({error}): see to it that no fleet runs on box "{box}", which may need the memory',
        WARNING,
    )
    REDIS_BACK = "Redis can be used again"
    CHUNKS_WAIT_FOR_ROOM = (
        "Redis has little memory left: {chunks} chunks of batch {batch} are sent when there is room (its maxmemory)",
        WARNING,
    )
    REDIS_RETRYING = "Redis cannot be used, trying on: {error}", WARNING
    HEARTBEAT_MISSED = "heartbeat missed: {error}", DEBUG

    # A chunk in a worker.
    ASSIGNED = "Assigned {speakers} speakers, {texts} texts total"
    SPEAKER_STARTED = "Processing Speaker {speaker} ({place}/{speakers})"
    SPEAKER_TEXTS = "This speaker has {texts} texts"
    SPEAKER_PROGRESS = "Speaker {speaker} progress: {finished}/{texts}"
    SPEAKER_COMPLETED = "✅ Completed Speaker {speaker}: {generated} segments"
    SPEAKER_FAILED = "❌ Speaker {speaker}: no segment generated, {texts} failed", WARNING
    WORKER_DONE = "✅ All done! Processed {generated}/{texts} segments"
    SEGMENT_FAILED = "❌ Segment {segment} of Speaker {speaker} failed: {error}", WARNING
    ATTEMPT_FAILED = "Segment {segment} of Speaker {speaker}, attempt {number} of {attempts} is made again: {reason}"
    CHECK_BROKEN = "The check {check} raises, so the attempts at which it does pass: {error}", WARNING
    ATTEMPT_NOT_KEPT = "{file} cannot be written, so a crash may repeat the attempt: {error}", WARNING
    TEXT_NOT_SEGMENTED = (
        "The ends of sentences in a long text cannot be found, so it is split at commas: {error}",
        WARNING,
    )
    CHUNK_GIVEN_UP = "Chunk {chunk} of batch {batch} is given up: {error}", ERROR
    CHUNK_PASSED_ON = (
        "Chunk {chunk} of batch {batch} is passed on to {to}: the process died again and again here, whatever it spoke"
        " of it",
        ERROR,
    )
    CHUNK_OF_OTHER_SCHEMA = (
        "A chunk of wire version {version} came to a worker of version {own_version}: left in {queue} for a worker "
        "that can read it",
        ERROR,
    )
    MESSAGE_DEAD_LETTERED = "A message of {queue} is in the dead-letter list: {reason}", ERROR
    MESSAGE_REFUSED = "A message was refused: {error}", ERROR
    DISK_FULL = "No room in {folder}: waiting until there is", ERROR
    DISK_HAS_ROOM = "There is room in {folder} again"
    DISK_FAILS = "{error}; waiting until that has passed, at most {left_s:.0f} s", ERROR
    DISK_WORKS = "{folder} can be used again"
    OUTPUTS_NOT_FLUSHED = (
        "{folder} cannot be flushed to its disk ({error}): what was written last may be lost with the power",
        ERROR,
    )
    CODES_UNUSABLE = "{path} cannot be used, and is made again: {error}", WARNING
    ENVIRONMENT_NOT_KEPT = (
        "What this worker generates with cannot be noted, and `cloner reproduce` will not know it: {error}",
        WARNING,
    )
    CODES_NOT_KEPT = "{path} cannot be written, so the recording may be encoded again: {error}", WARNING

    # Batches in the collector.
    LEFTOVER_NOT_LISTED = "Batch {batch}: files of its earlier versions cannot be listed: {error}", WARNING
    LEFTOVER_NOT_REMOVED = "{output}, of an earlier version of the batch, cannot be removed: {error}", WARNING
    SEGMENTS_REUSED = "Batch {batch}: {reused} of {total} segments are there from earlier batches"
    STALLED_BATCH_CLOSED = (
        "Batch {batch}: all of its chunks are finished and no message would close it, so it is closed now",
        WARNING,
    )
    STALLED_BATCH_REOPENED = (
        "Batch {batch}: no message of it is in a queue or unacknowledged, so it is opened again",
        WARNING,
    )
    STALLED_BATCHES_NOT_READ = "stalled batches were not looked for: {error}", DEBUG
    STALLED_BATCH_NOT_RESUMED = "Batch {batch}: no message of it is under way, and it is not resumed: {error}", WARNING
    ROUND_BEGUN = (
        "Batch {batch}: {missing} segments have no result, so {chunks} of its chunks are sent again",
        WARNING,
    )
    REVIEW_WAITS = "Batch {batch}: {takes} takes wait until other batches are reviewed"
    REVIEW_BEGUN = "Batch {batch}: takes that are to be reviewed: {takes}"
    REVIEW_ENDED = "Batch {batch}: its review ends incomplete: {reason}", WARNING
    TAKE_FAILED = "Segment {segment} of Speaker {speaker} fails the review: {reason}"
    TAKE_NOT_REVIEWED = "Batch {batch}: {what} is not reviewed: {error}", WARNING
    SPOKEN_AGAIN = (
        "Batch {batch}: segments that fail the review and are spoken again: {segments}, {repeated} of them not for the"
        " first time"
    )
    BATCH_NOT_KEPT = (
        "Batch {batch} and its references cannot be kept on the disk, so `redo` and `retry` depend on Redis: {error}",
        WARNING,
    )
    FILE_NOT_WRITTEN = "{file} of batch {batch} cannot be written: {error}", ERROR

    # Files.
    FOLDER_NOT_LOCKED = "{folder} cannot be locked ({error}): see to it that no other fleet writes there", WARNING
    RECORD_LINE_TORN = "{file} has a torn line (a worker died while writing it); it is passed over", WARNING
    RECORD_UNREADABLE = "{path} cannot be read, so what it tells of may be spoken again: {error}", WARNING
    REDO_UNREADABLE = "{path} cannot be read, so the report may be without some earlier takes: {error}", WARNING
    REVIEWS_UNREADABLE = "A report is without what the review says: {error}", WARNING
    PEAKS_UNUSABLE = "{path} cannot be used, so reports may be without some waveforms: {error}", WARNING
    JOURNAL_NOT_KEPT = "{path} cannot be kept, so a crash may not be put down to its cause: {error}", WARNING

    # Any process.
    FAILED = "{error}", ERROR

    def __init__(self, template: str, level: int = INFO) -> None:
        self.template = template
        self.level = level

    @property
    def id(self) -> str:
        return self.name.lower()

    def line(self, **fields: object) -> LogLine:
        """The line with these fields; all that the template names are needed."""
        return LogLine(self, fields)


class LogLine(str):
    """The text of a log line, which also has its event and the fields."""

    event: Event
    fields: Mapping[str, object]

    def __new__(cls, event: Event, fields: Mapping[str, object]) -> LogLine:
        line = super().__new__(cls, event.template.format_map(fields))
        line.event = event
        line.fields = fields
        return line
