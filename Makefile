# Two commands on a fresh clone: make demo, make test. They install into .venv and touch nothing else.
#
#   PYTHON=python3.12            another Python, 3.10 to 3.13
#   PIP_FLAGS="--index-url ..."  where torch comes from, for example https://download.pytorch.org/whl/cpu
#   DEVICE=cuda                  where the demo runs: auto, cpu, cuda, mps
#   JOBS=4                       how many tests run at once

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
DEVICE ?= auto
TESTS ?= tests
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: demo demo-page test test-slow lint docs install clean

demo: $(VENV)/.installed
	$(BIN)/python -m monai_sasm.cli.demo --output demo_output --device $(DEVICE)

# docs/demo/: the page that restores in the browser's tab alone, for any static web host; needs npm
demo-page: $(VENV)/.installed
	$(BIN)/python scripts/build_demo.py

test: $(VENV)/.installed
	$(PYTEST) -m "not slow" $(TESTS)

# what takes longer: whole trainings, processes that are killed, the tour
test-slow: $(VENV)/.installed
	$(PYTEST) -m slow $(TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# the manual, into build/site; a warning is an error
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --config-file docs/site/mkdocs.yml

install: $(VENV)/.installed

# torch first: torchvision asks for torch without its build tag, and would otherwise replace a CPU build by a CUDA build.
# The tested versions are for Python 3.11 and later; on 3.10 pip chooses.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10 to 3.13 with venv found; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		cp constraints.txt $(VENV)/constraints.txt; else : > $(VENV)/constraints.txt; fi
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c $(VENV)/constraints.txt torch $(if $(PIP_FLAGS),torchvision)
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo_output docs/demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
