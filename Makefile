# `make demo` and `make test` need nothing but Python 3.11 or later, pip, make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINES := .venv-engines
MODEL := fixtures/sotu-5m
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test check test-hub test-engines hub bench clean

help:
	@echo 'make demo          prune the fixture model and verify the result'
	@echo 'make test          lint, types, fast tests (offline once set up)'
	@echo 'make test-hub      network faults and kills, against a stand-in Hub on the loopback'
	@echo 'make hub           that stand-in, serving the fixture model, to try by hand'
	@echo 'make test-engines  run outputs in transformers, llama.cpp and mlx-lm (1.3 GB of packages)'
	@echo 'make bench         memory and time on 1B to 70B shapes; held-out loss of the fixture model'
	@echo 'make clean         remove environments and outputs'

demo: $(VENV)/.run
	@$(BIN)/gatenorm-stream $(MODEL) --out demo-pruned --force
	@$(BIN)/gatenorm-stream verify demo-pruned --against $(MODEL)
	@echo
	@echo 'now your own model:  $(BIN)/gatenorm-stream PATH/TO/MODEL --out PRUNED'

test: check
	$(BIN)/pytest tests --ignore=tests/engines -n auto -m 'not slow'

check: $(VENV)/.dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy

test-hub: $(VENV)/.dev
	$(BIN)/pytest tests/hub -n auto

hub: $(VENV)/.run
	$(BIN)/python tests/hub/hub_server.py $(MODEL)

test-engines: $(ENGINES)/.run
	$(ENGINES)/bin/python -m pytest tests/engines

bench: $(ENGINES)/.run
	$(ENGINES)/bin/python benchmarks/memory.py
	$(ENGINES)/bin/python benchmarks/hub_bytes.py
	$(ENGINES)/bin/python benchmarks/heldout_loss.py

clean:
	rm -rf $(VENV) $(ENGINES) demo-pruned demo-pruned.partial .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml constraints.txt
	@echo 'setting up $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

$(ENGINES)/.run: pyproject.toml tests/engines/requirements.txt
	@echo 'setting up $(ENGINES) ...'
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@$(ENGINES)/bin/python $(PIP) -r tests/engines/requirements.txt -e .
	@touch $@
