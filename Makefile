# `make demo` and `make test` do all their own set-up and need no root.
# PYTHON picks the interpreter: 3.11, 3.12 or 3.13.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] < (3,14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test check lock translations bench bench-lab bench-sim clean
help:
	@echo "make demo   five daemons on this machine: publish a folder, watch it reach two villages"
	@echo "make test   every test, with coverage"
	@echo "make check  ruff, mypy, import-linter, translations"
	@echo "make bench  benchmarks: ratios measured side by side"
	@echo "make bench-lab  other programs on the same emulated links: one table of ratios"
	@echo "make bench-sim  the planners' simulation beside SimGrid; the national scenario's time and memory"

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Cuntong needs Python 3.11, 3.12 or 3.13; none was found. Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is incomplete. On Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing what Cuntong needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	@$(BIN)/cuntong demo $(if $(CONTENT),--content "$(CONTENT)") $(if $(KEEP),--keep)

test: $(STAMP)
	@rm -f .coverage .coverage.*
	$(BIN)/python tests/run.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.translations check

# Needs uv; writes the hashes of every wheel for Python 3.11 to 3.13.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--group dev --extra qr --extra sim --extra datacast pyproject.toml -o requirements.lock

translations: $(STAMP)
	$(BIN)/python -m tests.support.translations update

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

# Needs root or user namespaces, and takes about five minutes a contender.
bench-lab: $(STAMP)
	$(BIN)/cuntong sim lab compare config/lab/R1.toml --scenario config/lab/scenarios/mixed.toml $(if $(OUT),--out "$(OUT)")

# SimGrid is Debian's python3-simgrid, for the system's own Python; without it only our rows are printed.
bench-sim: $(STAMP)
	$(BIN)/python -m tests.benchmarks simulation

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
