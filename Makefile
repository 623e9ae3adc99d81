# What a person runs, and what .ci/run runs. Each target sets up what it needs, so any of them works on a fresh clone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all lint type bench detection peers precision agreement mutations coverage golden docs build check gpu-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install vit-deploy into it, with everything for development

# The stamp is written last: an interrupted installation starts again.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## export, verify and run the built-in digits model; offline
	@$(BIN)/vit-deploy demo

# Whole files go to one process for each core, with one thread each: most of a test is Python's own time.
test: setup ## every test that needs no GPU and no patience
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile -m "not slow and not gpu"

test-all: setup ## every test, the slow ones too; those for a GPU skip where there is none
	$(BIN)/python -m pytest

lint: setup ## ruff, and that imports point one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup ## mypy, strict
	$(BIN)/mypy

bench: setup ## the project's own speed and memory, against a bare torch export and a bare loop
	@set -e; for script in $(filter-out benchmarks/detection.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

RESULTS := benchmarks/results/$(or $(DEVICE),amd-epyc-2-cores)

peers: setup ## ours beside others' tools, each in its own environment, in one run; rewrites the README's table
	$(BIN)/python -m benchmarks.peers --output "$(RESULTS)/peers.json" --readme $(PEERS_FLAGS)

precision: setup ## what bf16 and int8 gain, beside other tools' int8 and bf16, in one run for each model and batch size
	$(BIN)/python -m benchmarks.peers.precision --output "$(RESULTS)/precision.json" --guide $(PEERS_FLAGS)

agreement: setup ## whether our p50 is what OpenVINO's benchmark_app and a bare ONNX Runtime loop measure
	$(BIN)/python benchmarks/agreement.py --output "$(RESULTS)/agreement.json"

detection: setup ## does bench see a 2 % slow-down, and none where there is none? 40 quiet minutes
	$(BIN)/python benchmarks/detection.py --output "$(RESULTS)/detection.json"

mutations: setup ## put injected faults and honest artefacts to the parity check; rewrites benchmarks/parity/README.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check polygraphy==0.53.6
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.parity --output "$(RESULTS)/mutations.json"

coverage: setup ## measure every specimen again and rewrite docs/coverage.md; ONLY=timm/eva measures some of them
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.specimens --only "$(ONLY)"

golden: setup ## rewrite tests/golden and the schemas in docs/; read the diff before you commit it
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q -m "not slow and not gpu" -k golden
	git diff --stat -- tests/golden docs/manifest.schema.json docs/verify.schema.json docs/bench.schema.json

docs: setup ## run the commands and check the links of README and docs
	$(BIN)/python -m pytest tests/test_docs.py

build: setup ## source distribution and wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

check: lint type test ## what has to hold before a change is merged

gpu-check: setup ## the contract tests and benchmarks on a CUDA machine; figures into benchmarks/results/
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/gpu/check.py --output benchmarks/results

clean: ## remove what was made here, .venv included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
