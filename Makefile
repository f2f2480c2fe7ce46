# Everything happens in .venv, made when it is missing and again when what it must hold has changed.
# PYTHON=python3.12 make demo chooses an interpreter; otherwise the first of 3.11 to 3.13 that runs is taken.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then echo $$p; break; fi; done)
BIN := .venv/bin
DEPRECATIONS := -W default::DeprecationWarning -W default::FutureWarning -W default::PendingDeprecationWarning \
	-W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: .venv demo demo-real test test-all test-real mutants torture lowest newest wheel lint docs bench size reproduce tables quick clean

.venv: .venv/.made

.venv/.made: constraints.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; fi
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch .venv/.made

demo: .venv
	$(BIN)/interp-transfer demo

# Two real models: a vector of one makes the other, of another family and tokenizer, answer in French. Downloads 570 MB; then about
# eight minutes on two cores.
demo-real: .venv
	$(BIN)/interp-transfer demo-real

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Lint, types, and every test that is not slow: at most 8 minutes on two cores.
test: lint
	$(BIN)/pytest $(PARALLEL) -m "not slow and not real"

# The slow tests too: training, notebooks, killed processes.
test-all: test
	$(BIN)/pytest $(PARALLEL) -m "slow and not real"

# What needs a real model: those that `interp-transfer models get` put into the user's cache; the others are skipped.
test-real: .venv
	$(BIN)/pytest -m real -rs

# Faults that somebody could make, one by one: at least 90% must be caught. About 15 minutes.
mutants: .venv
	$(BIN)/python -m tests.mutants.run

# Each job that resumes is killed at 50 random moments, and each kind of file damaged 10,000 times. About half an hour.
torture: .venv
	$(BIN)/python -m tests.torture.run

# The quick tests with the lowest and the newest versions that pyproject.toml allows, each in an environment of its own. Old and new
# libraries deprecate things, and leave files open, where the tested set does not.
lowest newest: .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/$@
	$(BIN)/uv pip install --quiet --python build/$@ --resolution $(if $(filter lowest,$@),lowest-direct,highest) --editable '.[dev]'
	build/$@/bin/python -m pytest $(PARALLEL) -m "not slow and not real" $(DEPRECATIONS)

# A wheel in an empty environment, and the demo there, outside the checkout.
wheel: .venv
	rm -rf build/wheel build/empty
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet --constraint constraints.txt "$$(echo build/wheel/*.whl)[organisms]"
	cd build/wheel && ../empty/bin/interp-transfer demo --out demo

bench: .venv
	$(BIN)/python -m benchmarks

# Lines of Python by folder.
size: .venv
	@$(BIN)/python docs/house.py

# The page of results, from what docs/results holds; what is missing there is measured.
reproduce: .venv
	$(BIN)/interp-transfer reproduce --out docs/results --page docs/RESULTS.md

# The tables of the documentation, likewise.
tables: .venv
	$(BIN)/interp-transfer reproduce --tables --out docs/results --page docs/made

quick: .venv
	$(BIN)/interp-transfer reproduce --quick --out build/quick

docs: .venv
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs
	@echo "open build/docs/index.html"

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
