# `make reproduce` and `make test` do all the set-up they need, in .venv, on a machine with Python >= 3.11, git and make.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: reproduce results test test-slow test-all test-avx2 test-jobs lint clean

# The quick form of the first table: minutes, and not comparable with the paper. It ends by saying how to run the whole.
reproduce: $(VENV)/.ready
	$(BIN)/python -m clray.reproduce mer_rotations --quick

# The pages in docs/results, from the reference runs that ship (reproduce/records). Nothing is trained.
results: $(VENV)/.ready
	$(BIN)/python -m clray records pages docs/results

PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The quick tests. TESTS= names a part.
test: $(VENV)/.ready
	$(PYTEST) -m "not slow" $(TESTS)

# The others: hosts made for `ray up`, clusters and launches that lose processes, whole commands.
test-slow: $(VENV)/.ready
	$(PYTEST) -m slow $(TESTS)

test-all: $(VENV)/.ready
	$(PYTEST) $(TESTS)

# The tracks' quick tests as on a processor whose best is AVX2; for one that has more. Kernels are compiled anew for it.
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: export ATEN_CPU_CAPABILITY := avx2
test-avx2: export NUMBA_CPU_NAME := haswell
test-avx2: export NUMBA_CPU_FEATURES := +sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe
test-avx2: TESTS = tests/vision tests/language tests/episodes tests/test_execution.py
test-avx2: test

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
