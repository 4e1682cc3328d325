# Everything from a bare clone, with Python 3.11 or newer and GNU make alone:
#   make demo        set up, then judge real solar cells and open a report
#   make test        set up, then run the tests
#   make test-slow   the tests that take minutes
#   make test-random the tests, with new random examples in those of properties
#   make test-ray    set up with Ray, then the tests on a Ray cluster of this machine
#   make check       lint, formatting, types, spelling, the locked dependencies
#   make drills      kill every long job 200 times in all, fill disks, damage files (5 minutes)
#   make fuzz        damaged input for everything that reads files and requests (5 minutes)
#   make lock        write requirements.lock anew (needs the network)
#   make docs        the documents as a site, in site/; every warning is an error
#   make test-browser  the pages in a headless Chromium, which has to be there (Debian: apt install chromium)
# Another interpreter: make PYTHON=python3.12 setup (before .venv exists, or after make clean).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# Each test process computes on one thread: several processes with several threads each slow one another down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help setup demo test test-slow test-random test-ray test-browser check docs format clean lock audit drills fuzz
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

# The same examples each time: a change is not held up by what a new one finds elsewhere. That is test-random's.
test: $(STAMP)
	$(PYTEST) -n $(WORKERS) --hypothesis-profile=ci

test-random: $(STAMP)
	$(PYTEST) -n $(WORKERS) --hypothesis-profile=default

test-slow: $(STAMP)
	$(PYTEST) -m slow

# Chromium is the system's: HEADCLIP_CHROMIUM, or what the PATH has. axe-core comes by npm; HEADCLIP_AXE names another.
test-browser: $(STAMP)
	$(PIP) -e '.[browser]' --no-build-isolation
	@test -n "$$HEADCLIP_AXE" -o -f node_modules/axe-core/axe.min.js || npm install --silent --no-save axe-core@4
	HEADCLIP_BROWSER=required $(PYTEST) -p no:xdist -m browser tests/web

# Ray is large (some 350 MB with what it needs), so that it is not part of the set-up.
test-ray: $(STAMP)
	$(PIP) -e '.[ray]' --no-build-isolation
	HEADCLIP_TEST_RAY=1 $(PYTEST) tests/engine -m "slow or not slow" --durations=5

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/codespell
	$(BIN)/python scripts/audit.py

# What can be known of the dependencies with no network; see the script for what cannot.
audit: $(STAMP)
	$(BIN)/python scripts/audit.py

lock: $(STAMP)
	$(PIP) pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra serve -c constraints.txt \
		-o $(VENV)/requirements.lock pyproject.toml
	{ sed -n '1,4p' requirements.lock; cat $(VENV)/requirements.lock; } > $(VENV)/requirements.new
	mv $(VENV)/requirements.new requirements.lock

drills: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/drills.py --kills 200

fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz.py --seconds 300

docs: $(STAMP)
	$(PIP) -e '.[docs]' --no-build-isolation
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
