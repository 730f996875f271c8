# make help lists the targets. Everything runs in .venv, which the targets make when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
MIN_VENV = .venv-min
TORCH = $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: help install quickstart test test-min test-transformers lint style types bench bench-full faults faults-long
.PHONY: bench-gpu fuzz audit wheel-check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,corpus,search,onnx,demo]"
	touch $(STAMP)

install: $(STAMP)  ## make .venv with the package and what development needs

quickstart: $(STAMP)  ## train a RexBERT through its three phases on the built-in sample shop
	$(BIN)/accelerate launch --quiet --num_processes 1 recipes/pretrain.py recipes/configs/quickstart.yaml

test: $(STAMP) lint types  ## lint, types, and all tests
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

$(MIN_VENV)/.installed: setup.cfg constraints-min.txt
	test -d $(MIN_VENV) || $(PYTHON) -m venv $(MIN_VENV)
	$(MIN_VENV)/bin/pip install -q --upgrade pip
	$(MIN_VENV)/bin/pip install -q $$(sed -n 's/^torch==/torch==/p' constraints-min.txt)
	$(MIN_VENV)/bin/pip install -q -c constraints-min.txt -e ".[dev,corpus,search,onnx]"
	touch $@

test-min: $(MIN_VENV)/.installed  ## all tests with the oldest versions that setup.cfg allows
	$(MIN_VENV)/bin/python -m pytest -n 2

test-transformers: $(STAMP)  ## transformers' own model tests, stock ModernBERT as the control (fetches its sdist)
	$(BIN)/python tests/transformers_suite/run.py

bench: $(STAMP)  ## every benchmark beside its peers, in a minutes mode; one dated table in benchmarks/results
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/all.py

bench-full: $(STAMP)  ## the same at the sizes that the goals are for: hours
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/all.py --full

bench-gpu:  ## checks, training steps of all sizes, long documents, encoding on a GPU: 9 minutes; GPU_OPTIONS for more
	PYTHONPATH=$(CURDIR)/src:$$PYTHONPATH $(PYTHON) benchmarks/gpu.py $(GPU_OPTIONS)

faults: $(STAMP)  ## kill every kind of long job twice, fill disks, damage files; under 20 minutes on 2 cores
	REXBERT_FAULTS=2 $(BIN)/python -m pytest tests/faults -rfEs -n 2 --dist loadgroup --timeout 1800

faults-long: $(STAMP)  ## the same with five kills a job
	REXBERT_FAULTS=5 $(BIN)/python -m pytest tests/faults -rfEs -n 2 --dist loadgroup --timeout 3600

fuzz: $(STAMP)  ## FUZZ_SECONDS (600) of odd bytes a reader, card, classifier and settings parser; needs no atheris
	$(BIN)/python tests/faults/fuzz.py $(FUZZ_TARGETS)

audit: $(STAMP)  ## known weaknesses of the pinned packages, where pip-audit reaches its list
	$(BIN)/python tests/house/audit.py constraints.txt

wheel-check: $(STAMP)  ## build the wheel, install it into a clean environment, and use it there; WHEEL_CHECK="--dependencies here" offline
	$(BIN)/python tests/house/wheel_check.py $(WHEEL_CHECK)

clean:  ## remove environments and caches
	rm -rf $(VENV) $(MIN_VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
