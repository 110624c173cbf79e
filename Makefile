# Every target makes what it needs: a machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: help train test test-fast lint docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

train: $(READY)  ## train a language model on text that ships with Python; no network
	$(PY) -m train.rnnlm --epochs 8

test: $(READY)  ## run the whole test suite, on all cores
	$(PY) -m pytest -n auto --dist worksteal

test-fast: $(READY)  ## run the tests but for the slow ones
	$(PY) -m pytest -n auto --dist worksteal -m "not slow"

lint: $(READY)  ## style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(VENV)/.docs  ## build the guide into site/; open site/index.html
	$(PY) -m docs.tools.notebooks
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean:  ## remove the environment and everything the tools cached; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build site

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Time Layers needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable ".[test]"
	@touch $@

$(VENV)/.docs: $(READY)
	$(PY) -m pip install --quiet --editable ".[docs]"
	@touch $@
