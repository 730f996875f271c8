# make help lists the targets. Everything runs in .venv, which the targets make when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
MIN_VENV = .venv-min
TORCH = $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: help install quickstart test test-min test-transformers lint style types bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,corpus,search,onnx]"
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

bench: $(STAMP)  ## run every benchmark beside its peers; each ends with one JSON line
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	for script in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python $$script || exit 1; done

clean:  ## remove environments and caches
	rm -rf $(VENV) $(MIN_VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
