"""Several clients send batches to a fleet while its processes are killed, frozen and cut off from Redis.

``make chaos SEED=n MINUTES=m`` runs it. It prints each fault, what was done, and what was lost; the exit status is 1 if
anything was. The logs and files of a run that lost something are kept.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.chaos.scenario import Outcome, parts, run_part


def main(seed: int, minutes: float) -> int:
    """Run both engines' parts and print what came of them; return 1 if anything was lost, wrong or left."""
    folder = Path(tempfile.mkdtemp(prefix="cloner-chaos-"))
    checkpoint = folder / "tiny-random"
    init = [sys.executable, "-m", "cloner", "checkpoint", "init", str(checkpoint), "--preset", "tiny"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    outcomes = []
    for number, part in enumerate(parts(60 * minutes, checkpoint)):
        print(f"{part.title}, {part.seconds:.0f} s of faults", flush=True)
        outcomes.append(run_part(part, seed, folder / str(number)))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(seed, outcomes))
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    for problem in problems:
        console.print(f"✗ {problem}", markup=False)
    if problems:
        console.print(f"Logs and files are kept in {folder}")
        return 1
    console.print("Nothing was lost")
    shutil.rmtree(folder)
    return 0


def table(seed: int, outcomes: list[Outcome]) -> Table:
    """One column an engine."""
    shown = Table(title=f"seed {seed}")
    shown.add_column("")
    for outcome in outcomes:
        shown.add_column(outcome.title, justify="right")
    shown.add_row("batches", *(str(outcome.batches) for outcome in outcomes))
    shown.add_row("of them cancelled and submitted again", *(str(outcome.cancelled) for outcome in outcomes))
    for strategy in sorted({name for outcome in outcomes for name in outcome.strategies}):
        shown.add_row(f"strategy {strategy}", *(str(outcome.strategies[strategy]) for outcome in outcomes))
    shown.add_row("segments", *(str(outcome.segments) for outcome in outcomes), end_section=True)
    for kind in sorted({name for outcome in outcomes for name in outcome.faults}):
        shown.add_row(kind, *(str(outcome.faults[kind]) for outcome in outcomes))
    shown.add_row("faults", *(str(outcome.faults.total()) for outcome in outcomes), end_section=True)
    shown.add_row("lost, wrong or left", *(str(len(outcome.problems)) for outcome in outcomes))
    return shown


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
