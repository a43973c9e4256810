# Each target makes .venv first if it is missing or older than what it depends on.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
STAMP := $(VENV)/.set-up
GPU_PYTHON ?= $(shell command -v python3.12 || echo python3.12)
GPU_VENV := .venv-gpu
HERE := $(if $(shell command -v nvidia-smi),$(GPU_VENV),$(VENV))

.PHONY: quickstart setup setup-gpu test test-gpu test-gpu-static test-next bench-gpu gpu-check gpu-check-full gpu-check-dry thorough multihost cases faults fuzz lint lock lock-gpu docs docs-serve

quickstart: setup
	$(VENV)/bin/rlstack train configs/quickstart.yaml

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock tools/setup.py
	$(PYTHON) tools/setup.py $(VENV)
	touch $(STAMP)

setup-gpu: $(GPU_VENV)/.set-up

# Its last package, Transformer Engine's extension, is compiled with the headers of the others.
$(GPU_VENV)/.set-up: pyproject.toml requirements-gpu.lock tools/setup_gpu.py
	$(GPU_PYTHON) tools/setup_gpu.py $(GPU_VENV)
	touch $@

# Tests without engines, beside each other; then those with engines, two files at a time.
test: lint
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slow and not thorough'
	$(VENV)/bin/pytest -n 2 --dist loadfile -m 'slow and not thorough'

# With an NVIDIA GPU; without one all of them are left out. What needs more than one says so.
test-gpu: $(HERE)/.set-up
	$(HERE)/bin/pytest -m gpu tests/gpu tests/kernels tests/distributed/test_ipc.py

# What of the packages for GPUs can be tested without one: 11 GB, and what it takes is in the result.
test-gpu-static:
	$(GPU_PYTHON) tools/gpu_static.py .venv-gpu-static --out benchmarks/results/gpu_static.json

# The same with the newest releases of everything, in .venv-next: what they break.
test-next:
	$(GPU_PYTHON) tools/gpu_static.py .venv-next --newest

bench-gpu: setup-gpu
	$(GPU_VENV)/bin/python benchmarks/kernels.py --out benchmarks/results/gpu_kernels.json

# What the table of where it has been run is made from. The first needs no more than torch with CUDA and Triton
# (docs/how-to/check-gpus.md has the line for a machine without a network); GPU_PYTHON is its Python.
gpu-check:
	$(firstword $(wildcard $(GPU_VENV)/bin/python) $(GPU_PYTHON)) tools/gpu_check run

gpu-check-full: setup-gpu
	$(GPU_VENV)/bin/python tools/gpu_check run --profile full

# Both on the CPU, as far as they go there; about ten minutes on two idle cores.
gpu-check-dry: setup
	$(VENV)/bin/python tools/gpu_check run --dry-run
	$(VENV)/bin/python tools/gpu_check run --dry-run --profile full

# All tests: the long runs in further cases too.
thorough: lint
	$(VENV)/bin/pytest -m ''

# Runs over hosts of their own on this machine, and what goes wrong between hosts: root, iproute2, util-linux.
multihost: setup
	$(VENV)/bin/pytest -m multihost tests/multihost

# Small inputs with known outcomes, by kind: tests/cases, and ../shared/cases where it is there.
cases: setup
	$(VENV)/bin/python -m tests.cases

# More than an hour: one run for each fault. Those that were survived are not tried again.
faults: setup
	$(VENV)/bin/python -m tests.faults --out benchmarks/results/faults.json

# 10,000 examples of each property of the parsers.
fuzz: setup
	HYPOTHESIS_PROFILE=thorough $(VENV)/bin/pytest tests/fuzz

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# After a change of versions that the tests have passed with.
lock: setup
	$(VENV)/bin/python tools/lock.py

# The packages for GPUs at the versions of requirements.lock, as far as those for GPUs can have them.
lock-gpu: setup
	$(VENV)/bin/python tools/lock_gpu.py $(GPU_PYTHON)

# The documentation, in build/docs. It loads nothing from other hosts.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve --dev-addr 127.0.0.1:8000

$(VENV)/.docs: $(STAMP)
	$(VENV)/bin/pip install -e '.[docs]'
	touch $@
