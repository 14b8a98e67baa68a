# Each target runs one script or module. CONTRIBUTING.md describes them.
PYTHON ?= python3
BIN := .venv/bin
# Tests start some thousand Python processes: each would compile the project's modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-fast test-compose check docs bench voices soak chaos
setup: .venv/ready

.venv/ready: pyproject.toml ops/constraints.txt ops/fish-speech.txt ops/review.txt
	PYTHON=$(PYTHON) ops/scripts/setup

demo: setup
	$(BIN)/python ops/scripts/demo.py demo

# Most tests wait for processes: four at once keep two cores busy.
test: setup
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

# Without the tests that are marked as slow.
test-fast: setup
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal -m "not slow"

check: setup
	ops/scripts/check

# What is generated in the documents.
docs: setup
	$(BIN)/python ops/scripts/layers.py

bench: setup
	$(BIN)/python ops/scripts/bench.py

voices: setup
	$(BIN)/python ops/scripts/voices.py
	$(BIN)/python ops/scripts/voices_words.py

soak: setup
	$(BIN)/python ops/scripts/soak.py

chaos: setup
	$(BIN)/python ops/scripts/chaos.py $(or $(SEED),1) $(or $(MINUTES),10)

test-compose: setup
	ops/scripts/compose-tests
