# `make demo` and `make test` need only Python 3.11, pip and make: everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

MEASURED := features masked movies ridge sampling sparse world

.PHONY: demo test test-all lint bench install clean

demo: install
	$(BIN)/neuroreel demo demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ''

# what is measured against peers, each printing one JSON object as its last line
bench: install
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	set -e; for name in $(MEASURED); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --json; done

clean:
	rm -rf $(VENV) build dist demo
