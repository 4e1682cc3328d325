# Everything from a bare clone, with Python 3.11 or newer and GNU make alone:
#   make demo        set up, then judge real solar cells and open a report
#   make test        set up, then run the tests
#   make test-slow   the tests that take minutes
#   make check       lint, formatting, types, spelling
# Another interpreter: make PYTHON=python3.12 setup (before .venv exists, or after make clean).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# Each test process computes on one thread: several processes with several threads each slow one another down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help setup demo test test-slow check format clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# torch comes first and from the constraints, so that nothing later can pull another build of it. The build
# backend is installed beside it (no build isolation), because constraints do not reach into pip's build folder.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: headclip needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not that;" \
			"name one, for example: make PYTHON=python3.12 $(firstword $(MAKECMDGOALS))" >&2; exit 2; }
	@echo "setting up $(VENV) (once; some minutes, mostly for torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(sed -n '/^torch==/p' constraints.txt)"
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e '.[dev,demo]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m headclip.demo

test: $(STAMP)
	$(PYTEST) -n $(WORKERS)

test-slow: $(STAMP)
	$(PYTEST) -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
