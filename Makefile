# demo and test set everything up themselves; they need Python ≥ 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := PASSIVE
export PYTHONUNBUFFERED := 1

.PHONY: demo test fast test-all torture lint bench gpu gpu-pack image

demo: $(VENV)/.ready
	$(BIN)/python -m realkit.apps.demo

# Lint keeps one core busy for half a minute, once its caches are gone: the tests need not wait.
test: $(VENV)/.ready
	@$(MAKE) --no-print-directory -j2 lint fast

fast: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-all: $(VENV)/.ready lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not gpu"

torture: $(VENV)/.ready
	$(BIN)/python -m tests.torture 100

bench: $(VENV)/.ready
	$(BIN)/python -m tests.bench_rungs
	$(BIN)/python -m tests.bench_scoring

# On a machine with a card and no network: tests/gpu.py says how.
gpu: $(VENV)/.ready
	$(BIN)/python -m tests.gpu

gpu-pack: $(VENV)/.ready
	$(BIN)/python -m tests.gpu_pack

# Kaggle's torch 2.11 and Python 3.12: 3 GB, and longer than a test of .ci/run may take.
image: $(VENV)/.ready
	$(BIN)/python -m tests.image

lint: $(VENV)/.ready
	$(BIN)/ruff check realkit tests
	$(BIN)/ruff format --check realkit tests
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "realkit needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): two to four minutes the first time"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps k-diffusion realesrgan
	-$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps --no-build-isolation basicsr
	@touch $@
