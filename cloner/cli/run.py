"""A batch on this box in one command: plan, register, assign, launch, wait, collect.

Speakers are assigned to workers that
are registered and not yet started, so each worker finds its assignment when it starts.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from redis import RedisError

from cloner.batch import Batch, Review, SpeechOptions
from cloner.cli.box_speed import at_known_speed, keep_speed
from cloner.cli.results import log_end
from cloner.client.assignment import Strategy, assign
from cloner.client.batch_handle import BatchHandle
from cloner.client.causes import find_causes
from cloner.client.client import Client
from cloner.client.estimate import Estimate, estimate
from cloner.client.parts import batch_of
from cloner.client.submit import pack_speakers
from cloner.console import Screen
from cloner.engine import check_engine
from cloner.errors import Damaged, UsageError
from cloner.events import Event
from cloner.output.audio_files import OutputRoot
from cloner.output.kept_references import KeptReferences
from cloner.output.lock import output_lock
from cloner.output.origin import Origin
from cloner.output.record import Record, batch_folder
from cloner.output.redo import check_redo
from cloner.output.reuse import check_files
from cloner.output.search import find_outputs
from cloner.output.speech_options import earlier_options
from cloner.output.writable import require_writable
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import Manifest
from cloner.protocol.results import BatchResult
from cloner.review.requirements import check_review
from cloner.settings import EngineName, Settings
from cloner.state.cleanup import remove_fleet
from cloner.state.connection import HASTE_S, connect, translate_redis_errors
from cloner.state.embedded import embedded_redis
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState
from cloner.state.references import ReferenceStore
from cloner.state.registry import Registry, expected_worker
from launcher.cpu import find_cpu
from launcher.gpus import find_gpus
from launcher.layout import Rule, plan_layout
from launcher.supervisor import Supervisor

RUN_LOG = "run.log"
"""The file of a batch's record with the log lines of the run, also those that a terminal does not show."""


Check = Callable[[Manifest], None]


def run_batch(  # noqa: PLR0913 - what an option says each
    batch: Batch, settings: Settings, screen: Screen, *, workers: int | None, reviewers: int, strategy: Strategy
) -> BatchResult | signal.Signals:
    """Generate the batch with workers and reviewers of its own; returns its result, or the signal that stopped the run.

    Raises `UsageError` if the output folder cannot be written, `LoadFailed` if the model does not load, `OutputsTaken`
    if another fleet writes in the folder, or if files are there that no version of the batch has written.
    """

    def submit(client: Client, check: Check) -> BatchHandle:
        return client.submit(batch, strategy=strategy, prefix="", check=check)

    return _run(batch, settings, screen, submit, workers, reviewers)


def run_part(part: Manifest, settings: Settings, screen: Screen, reviewers: int) -> BatchResult | signal.Signals:
    """The same for a part of a batch that lies under the output root, by the batch's engine and its checkpoint. With
    reviewers, it is reviewed as the batch was, and if that was not, suspects are; without, nothing is.

    Raises also `UsageError` if its references are not kept there any more, and `WrongCheckpoint` if other takes would
    be of another checkpoint.
    """
    if part.engine not in {"", *EngineName}:
        raise Damaged(f"batch {part.batch_id} was spoken by an engine {part.engine}, which this version does not have")
    review: Review = (part.review if part.review != "none" else "suspects") if reviewers else "none"
    part = part.model_copy(update={"review": review})
    changes: dict[str, object] = {"engine": EngineName(part.engine)} if part.engine else {}
    if part.checkpoint_dir:
        changes["checkpoint_dir"] = Path(part.path).parent / part.checkpoint_dir
    settings = settings.model_copy(update=changes)

    def submit(client: Client, check: Check) -> BatchHandle:
        references = ReferenceStore(client.blobs, client.keys, settings.batch_ttl_s)
        try:
            KeptReferences(settings.out_dir).restore(part.speakers, references.put)
        except OSError as error:
            raise UsageError(
                f"a reference under {settings.out_dir} cannot be read ({error}): run the batch's file again"
            ) from error
        return client.submit_part(part, check)

    return _run(batch_of(part), settings, screen, submit, None, reviewers)


def _run(  # noqa: PLR0913, PLR0917
    batch: Batch,
    settings: Settings,
    screen: Screen,
    submit: Callable[[Client, Check], BatchHandle],
    workers: int | None,
    reviewers: int,
) -> BatchResult | signal.Signals:
    """`submit` sends the batch, which it may refuse by a check of its manifest."""
    check_engine(settings)
    if reviewers:
        check_review(settings)
    layout = plan_layout(find_gpus(only=settings.gpus), find_cpu(), Rule.of(settings), len(batch.speakers), workers)
    require_writable(settings.out_dir)
    screen.log(Event.TOTAL_TASKS.line(total=batch.total))
    for line in [*layout.lines(), *layout.warnings()]:
        screen.log(line)
    with ExitStack() as stack:
        # A fleet of its own: the run may share a Redis with another fleet.
        fleet = f"run-{secrets.token_hex(4)}"
        stack.enter_context(output_lock(settings.out_dir, fleet))
        url = settings.redis_url or stack.enter_context(embedded_redis())
        settings = settings.model_copy(update={"redis_url": url, "fleet": fleet})
        stack.enter_context(translate_redis_errors(url))
        client = Client(settings=settings)
        stack.callback(_remove_fleet, client, RedisKeys(fleet), screen)
        hasty = connect(url, retries=0, answer_s=HASTE_S)
        hasty.ping()  # a launcher waits for a Redis that is away; a run says so
        registry = Registry(hasty, RedisKeys(settings.fleet), settings.alive_s)
        supervisor = Supervisor(
            settings, layout, registry, environment=_environment(settings), reviewers=reviewers, log=screen.log
        )
        with supervisor:
            supervisor.register()
            left = _Left(settings)
            handle = submit(client, left.count)
            stack.enter_context(_run_log(handle.id, settings, screen))
            for line in handle.assignment_lines(batch):
                screen.log(line)
            result = _follow(
                handle, supervisor, registry, screen, has_work=left.segments > 0, is_reviewed=reviewers > 0
            )
        if isinstance(result, signal.Signals):
            # Read only now, when its workers have stopped and record no more.
            record = Record(settings.out_dir, handle.id)
            record.refresh()
            generated = sum(segment.generated for segment in record.results.values())
            screen.log(Event.RUN_STOPPED.line(generated=generated, total=batch.total, folder=settings.out_dir))
        return result


@contextmanager
def _run_log(batch_id: str, settings: Settings, screen: Screen) -> Iterator[None]:
    """Write all that the screen is given to `RUN_LOG`, beside the record."""
    folder = batch_folder(settings.out_dir.resolve(), batch_id)
    try:
        opened = folder.open_file(RUN_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        screen.log(Event.RUN_LOG_NOT_KEPT.line(path=folder.path / RUN_LOG, error=error))
        yield
        return
    file = os.fdopen(opened, "a", encoding="utf-8")
    screen.copy_to(file)
    try:
        yield
    finally:
        screen.copy_to(None)
        with suppress(OSError):  # each line was flushed
            file.close()


class _Left:
    """What is left to generate of a run's batch, by the records; the collector looks again when it opens the batch."""

    def __init__(self, settings: Settings) -> None:
        self._outputs = OutputRoot(settings.out_dir)
        self.segments = 0

    def count(self, manifest: Manifest) -> None:
        """Count the segments that are left, before the models are loaded. Raises `OutputsTaken`."""
        if manifest.redo:
            check_redo(manifest, self._outputs)
            self.segments = manifest.total
            return
        wanted = wanted_outputs(manifest.speakers, manifest.speech)
        found = find_outputs(self._outputs, wanted, Origin.of(manifest))
        if not manifest.overwrite:
            check_files(found, manifest)
        self.segments = len(wanted) - sum(1 for _ in found.done())


def plan_batch(batch: Batch, settings: Settings, strategy: Strategy) -> Estimate:
    """What `run_batch` would generate, and how long that takes at the speed of earlier runs on this box. Reads only."""
    layout = plan_layout(find_gpus(only=settings.gpus), find_cpu(), Rule.of(settings), len(batch.speakers), None)
    workers, start_s = at_known_speed([expected_worker(settings, spec) for spec in layout.specs])
    rows = [row for row, _ in pack_speakers(batch)]
    fingerprint = workers[0].fingerprint
    options = SpeechOptions(
        generation=batch.generation, audio=batch.audio, engine=settings.engine, fingerprint=fingerprint
    )
    outputs = OutputRoot(settings.out_dir)
    found = find_outputs(outputs, wanted_outputs(rows, options), None)
    finished = list(found.done())
    causes = find_causes(
        batch,
        rows,
        options,
        earlier=earlier_options(outputs.root),
        finished=finished,
        find=lambda others: list(find_outputs(outputs, others, None).done()),
    )
    chunks, _ = assign(batch, workers, strategy, settings.queues)
    estimated = replace(estimate(batch, finished, found.changed, chunks, workers), causes=causes)
    return estimated if estimated.seconds is None else replace(estimated, seconds=start_s + estimated.seconds)


def _follow(  # noqa: PLR0913
    handle: BatchHandle,
    supervisor: Supervisor,
    registry: Registry,
    screen: Screen,
    *,
    has_work: bool,
    is_reviewed: bool,
) -> BatchResult | signal.Signals:
    """Start the workers and wait until the batch is closed; returns its result, or the signal that stopped the run.

    If it is said to have no work, they are started only if the collector finds some. Progress is shown until the last
    chunk is finished, and to the end where the batch may be reviewed.
    """
    supervisor.start(workers=has_work)
    if not has_work:
        screen.log(Event.NOTHING_LEFT.line())
    with screen.progress_display(plain_lines=False) as show:

        def chunks_finished() -> bool:
            nonlocal has_work
            progress = handle.poll()
            if progress is None:
                return False
            show(progress)
            if not has_work and progress.state is BatchState.RUNNING and progress.finished < progress.total:
                has_work = True
                supervisor.start_workers()
            return progress.closed or (progress.all_chunks_finished and not is_reviewed)

        if stopped := supervisor.run(until=chunks_finished):
            return stopped
    screen.log(Event.WAITING_FOR_WORKERS.line())
    screen.log(Event.COLLECTING_RESULTS.line())
    if stopped := supervisor.run(until=lambda: (progress := handle.poll()) is not None and progress.closed):
        return stopped
    result = handle.result()
    _keep_speed(registry, result, screen)
    supervisor.kill()
    log_end(result, screen)
    return result


def _keep_speed(registry: Registry, result: BatchResult, screen: Screen) -> None:
    """Note how fast the workers were, for `plan_batch`; if that cannot be done, the run's outcome stands."""
    try:
        keep_speed(registry.workers(), result.elapsed_s)
    except (OSError, RuntimeError, RedisError) as error:
        screen.log(Event.SPEED_NOT_KEPT.line(error=error))


def _remove_fleet(client: Client, keys: RedisKeys, screen: Screen) -> None:
    """Delete the run's keys, for Redis may not be its own; if it does not answer, the run's outcome stands."""
    try:
        remove_fleet(client.blobs, keys)
    except RedisError as error:
        screen.log(Event.REDIS_NOT_CLEANED.line(fleet=keys.fleet, error=error))


def _environment(settings: Settings) -> dict[str, str]:
    """These settings as environment variables of the workers, with absolute paths."""
    return {
        "CLONER_REDIS_URL": settings.require_redis_url(),
        "CLONER_FLEET": settings.fleet,
        "CLONER_OUT_DIR": str(Path(settings.out_dir).resolve()),
        "CLONER_CHECKPOINT_DIR": str(Path(settings.checkpoint_dir).resolve()),
        "CLONER_ENGINE": settings.engine,
    }
