# Everything here installs what it needs into .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint check floors clean

demo: .venv/installed
	$(BIN)/python -m examples.demo

test: .venv/installed
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	. $(BIN)/activate && PYTHONPATH=src pyright --ignoreexternal --verifytypes fastapi_tasks

check: lint test

floors:  # the suite with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/floors
	.venv/floors/bin/pip install --quiet --editable '.[test]' 'anyio==4.14.0' 'fastapi==0.134.0'
	.venv/floors/bin/python -m pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .coverage .*_cache
