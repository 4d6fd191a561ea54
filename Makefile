# Everything here installs what it needs into .venv first.

PYTHON ?= python3
MINUTES ?= 10
N ?= 20000
SEED ?= 1
CHART ?= .venv/soak.png
REF ?= HEAD
THIS ?= src
ROWS ?=
BIN := .venv/bin
# What `make quick` leaves out: test_servers, test_faults, test_demo and test_plugins start servers or
# programs, test_containment and test_programs take long.
NOT_QUICK := servers faults demo plugins containment programs

.PHONY: demo test quick quick-trio quick-asyncio lint check fuzz mutations faults floors soak bench bench-scaling bench-against clean

demo: .venv/installed
	$(BIN)/python -m examples.demo

test: .venv/installed
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

quick: .venv/installed  # most tests, in under a minute: both backends side by side
	@$(MAKE) --no-print-directory --keep-going --jobs=2 quick-trio quick-asyncio

quick-trio quick-asyncio: quick-%: .venv/installed  # what it prints comes when it has ended
	@output=$$($(BIN)/python -m pytest --quiet -p no:cacheprovider \
	  $(NOT_QUICK:%=--ignore=tests_$*/test_%.py) tests_$* 2>&1); status=$$?; \
	printf '%s: %s\n' '$*' "$$output"; exit $$status

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	. $(BIN)/activate && PYTHONPATH=src pyright --ignoreexternal --verifytypes fastapi_tasks

check: lint test

fuzz: .venv/installed  # N random programs from SEED on: what comes of them on both backends?
	$(BIN)/python -m tests_trio.programs.fuzz $(N) $(SEED)

mutations: .venv/installed  # break each guarantee, and see which test notices
	$(BIN)/python -m tests_trio.mutations

faults: .venv/installed  # real servers under real faults; rewrites the table in docs/design/faults.md
	$(BIN)/python -m tests_trio.faults_table

floors:  # the suite with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/floors
	.venv/floors/bin/pip install --quiet --editable '.[test]' 'anyio==4.14.0' 'fastapi==0.134.0'
	.venv/floors/bin/python -m pytest

soak: .venv/bench-installed  # two servers under a mixed load for so many MINUTES: what grows?
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) --chart $(CHART)

bench: .venv/bench-installed .venv/older/installed  # the budgets, on both backends; rewrites benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-scaling: .venv/bench-installed  # what a task costs, by how many there are
	$(BIN)/python -m benchmarks.scaling --chart docs/design/scaling.png

bench-against: .venv/bench-installed  # is any of the ROWS slower than at commit REF?
	@$(BIN)/python -m benchmarks.against --this '$(THIS)' --ref '$(REF)' --rows '$(ROWS)'

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/bench-installed: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	touch $@

.venv/older/installed: .venv/installed  # the older public project of the same name, to measure it as well
	$(PYTHON) -m venv .venv/older
	.venv/older/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt 'fastapi-tasks<1' 'anyio[trio]'
	touch $@

clean:
	rm -rf .venv .coverage .*_cache
