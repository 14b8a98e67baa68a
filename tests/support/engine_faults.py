"""Faults of the fake engine, for `ModulePatcher` to put into `cloner.engine.fake`."""

from __future__ import annotations

WORKER_1_CANNOT_LOAD = """
from cloner.errors import LoadFailed

load = module.FakeEngine.load

def fail(self, log):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        raise LoadFailed("the GPU has fallen off the bus")
    load(self, log)

module.FakeEngine.load = fail
"""

WORKER_1_DIES_LOADING = """
load = module.FakeEngine.load

def die_in_worker_1(self, log):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        die()
    load(self, log)

module.FakeEngine.load = die_in_worker_1
"""

NO_MEMORY_TWICE = """
from cloner.errors import LoadFailed

load = module.FakeEngine.load

def fail_twice(self, log):
    number = next(number for number in range(4) if once(f"load-{number}"))
    if number in (1, 2):
        raise LoadFailed("CUDA out of memory")
    load(self, log)

module.FakeEngine.load = fail_twice
"""
"""The second and the third load fail, as where the driver still holds a killed process's memory."""

LOADS_AFTER_SUBMISSION = """
load_at_once = module.FakeEngine.load

def load_later(self, log):
    wait_until("submitted")
    load_at_once(self, log)

module.FakeEngine.load = load_later
"""
"""After another fault: a batch is assigned to all workers, however long its client takes to submit it."""
