# Everything here works from a machine with Python 3.11 to 3.13, git and make.
#
#   make demo                  a training job goes through a queue, as a process
#   make demo TARGET=docker    the same in a container (BASE_IMAGE=… names the image it is built on)
#   make test                  all tests (ARGS="tests/unit -x" for some)
#   make check                 style, types and layers
#   make clean                 remove what make has made

SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET ?= process
ARGS ?=
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

# The environment is this folder's own, whatever the shell has activated.
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

.PHONY: help demo test check clean

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.ready
	@$(if $(BASE_IMAGE),LAUNCH_BASE_IMAGE='$(BASE_IMAGE)') TARGET='$(TARGET)' scripts/demo.sh

test: .venv/.ready-dev
	@$(BIN)/pytest $(ARGS)

check: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the product needs. --inexact: the tools of the tests stay where they are installed.
.venv/.ready: pyproject.toml uv.lock | .venv/bin/uv
	@echo "Installing launch-prefect into .venv"
	@$(BIN)/uv sync --quiet --frozen --no-dev --inexact
	@touch $@

# What the tests need, too.
.venv/.ready-dev: pyproject.toml uv.lock | .venv/bin/uv
	@echo "Installing launch-prefect and its tests' tools into .venv"
	@$(BIN)/uv sync --quiet --frozen --all-groups
	@touch $@ .venv/.ready

.venv/bin/uv:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11, 3.12 or 3.13 is needed; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. Debian and Ubuntu: apt-get install python3-venv; Fedora has it with python3." >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
