# `make reproduce` and `make test` do all the set-up they need, in .venv, on a machine with Python >= 3.11, git and make.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: reproduce test test-jobs lint clean

# The quick form of the first table: minutes, and not comparable with the paper. It ends by saying how to run the whole.
reproduce: $(VENV)/.ready
	$(BIN)/python -m clray.reproduce mer_rotations --quick

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

# Job submission needs ray[default], which nothing else does: 29 packages, 72 MB. They stay in .venv.
test-jobs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'
	$(BIN)/python -m pytest tests/cluster/test_jobs.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "clray needs Python 3.11 or later; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
