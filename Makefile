# Each target makes .venv first if it is missing or older than what it depends on.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
STAMP := $(VENV)/.set-up

.PHONY: quickstart setup test test-gpu thorough faults fuzz lint

quickstart: setup
	$(VENV)/bin/rlstack train configs/quickstart.yaml

setup: $(STAMP)

$(STAMP): pyproject.toml tools/setup.py
	$(PYTHON) tools/setup.py $(VENV)
	touch $(STAMP)

test: lint
	$(VENV)/bin/pytest

# On a machine with an NVIDIA GPU; without one these tests are left out.
test-gpu: setup
	$(VENV)/bin/pytest -m gpu tests/gpu

# All tests: the long runs in further cases too.
thorough: lint
	$(VENV)/bin/pytest -m ''

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
