"""Run the failed tests of the last pytest run once more, where that is allowed: a single test, under ``tests/chaos``.

Those tests kill, freeze and cut off real processes on a machine that may be busy. Each failed test is printed, in both
runs. Exits with 1 if anything else failed, or if it fails again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")

RETRIED = "tests/chaos/"


def refusal(failed: Sequence[str]) -> str:
    """Why the failed tests, by their ids, get no second try; empty if they get one."""
    others = [test for test in failed if not test.startswith(RETRIED)]
    if others:
        return f"no second try: {len(others)} of them are not under {RETRIED}"
    if len(failed) > 1:
        return "no second try: only one test may have it"
    if not failed:
        return "no second try: the run failed, but none of its tests did"
    return ""


def main() -> int:
    """Print the failed tests, and try them again if that is allowed."""
    failed = sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    print("Failed at the first try:", *failed, sep="\n  ", flush=True)
    if why := refusal(failed):
        print(why)
        return 1
    return subprocess.run([sys.executable, "-m", "pytest", *failed], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
