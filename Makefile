# Thin: each target names a script or a module.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-compose check bench soak
setup: .venv/ready

.venv/ready: pyproject.toml ops/constraints.txt ops/fish-speech.txt
	PYTHON=$(PYTHON) ops/scripts/setup

demo: setup
	$(BIN)/python ops/scripts/demo.py demo

# Most tests wait for processes: four at once keep two cores busy.
test: setup
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

check: setup
	ops/scripts/check

bench: setup
	$(BIN)/python ops/scripts/bench.py

soak: setup
	$(BIN)/python ops/scripts/soak.py

test-compose: setup
	ops/scripts/compose-tests
