# Everything runs in .venv, which is made here and brought up to date whenever
# pyproject.toml or what is compiled changes. All that has to be there before: make, and a Python
# from 3.11 with its venv module; another than python3 is chosen with PYTHON. What the tests need
# beside these, "make test" installs, or says how.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Given to kvd: make serve ARGS="--procs 4 --store file:/srv/values"
ARGS ?=
# Given to pytest: make test TESTS="-m 'not integration'"
TESTS ?=
# How many tests run side by side; they wait more than they compute.
JOBS ?= 4
# What trial runs: make trial TRIAL=tests
TRIAL ?= tests.client tests.log tests.store tests.workers
# Given to the measurements: make figures FIGURES="memory start"
FIGURES ?=
# How many workers die for each policy: make crash KILLS=1000
KILLS ?= 100
# How often the power is cut: make powercuts CUTS=100
CUTS ?= 20
# How many requests: make soak REQUESTS=1000000
REQUESTS ?= 100000
# How often that changes which changes while kvd serves: make changes SWITCHES=20
SWITCHES ?= 100
RESIZES ?= 20
# Given to the benchmark: make bench BENCH="--rounds 9 put-large get-small"
BENCH ?=

# What is compiled. A user's compiler may warn of other things than ours, so it is only
# here that a warning is an error.
NATIVE := $(wildcard kvd/native/*.[ch])
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef \
	-Wpointer-arith -Wstrict-prototypes -Wvla -Werror
# Its tests, in which as many random examples are compared as fit into seconds.
NATIVE_TESTS := tests/http/fast_path tests/net/test_splice.py
SANITIZED_EXAMPLES ?= 25

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.PHONY: serve test prepared lint docs trial coverage sanitize wheel crash powercuts changes soak figures bench clean

serve: $(VENV)/served
	$(BIN)/twistd -n kvd $(ARGS)

# Quick checks first. In a make of its own, which sees what has been installed.
test: prepared
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint docs trial sanitize
	@$(MAKE) --no-print-directory coverage

prepared:
	@PYTHON="$(PYTHON)" tests/prepare.sh

lint: $(VENV)/developed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documents as a site, in build/docs; whatever Sphinx warns of is an error.
docs: $(VENV)/developed
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going \
		--jobs=auto --doctree-dir=build/doctrees --conf-dir=docs . build/docs

# pytest runs all test cases too. That they need nothing of pytest, a share shows: those
# with the most Deferreds, threads and log events. TRIAL=tests runs all of them.
trial: $(VENV)/developed
	$(BIN)/python -m twisted.trial --reporter=text $(TRIAL)

# The tests of what is compiled under AddressSanitizer and UndefinedBehaviorSanitizer, in a
# copy that is built with them.
sanitize: $(VENV)/developed
	KVD_BOTH_EXAMPLES=$(SANITIZED_EXAMPLES) tests/native/sanitize.sh $(NATIVE_TESTS)

# What is published, but for its platform's tag: in dist/, checked and tried. The tests do
# the same with one of their own. KVD_PYTHONS names further Pythons to try it with.
wheel: $(VENV)/developed
	rm -rf dist
	$(BIN)/python -m build --no-isolation >/dev/null
	KVD_WHEEL="$$(echo dist/*.whl)" $(BIN)/python -m pytest tests/integration/test_wheel.py
	$(BIN)/auditwheel show dist/*.whl

# The fork server, the workers and every daemon that a test starts are measured
# too (tool.coverage.run in pyproject.toml).
coverage: $(VENV)/developed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=$(JOBS) --dist=worksteal $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Workers killed at random under load, for each policy. The tests do the same for
# a few; this says in figures what clients saw.
crash: $(VENV)/developed
	$(BIN)/python -m tests.crash $(KILLS)

# The power cut under load, on ext4 and XFS: what was lost. The tests do the same a few
# times.
powercuts: $(VENV)/developed
	$(BIN)/python -m tests.power_cuts $(CUTS)

# Many requests over one connection, with and without splice. The tests send fewer.
soak: $(VENV)/developed
	KVD_SOAK_REQUESTS=$(REQUESTS) $(BIN)/python -m pytest \
		tests/integration/test_bodies.py -k many_requests

# The policy, the number of workers and all workers changed under load: what became of
# the requests.
changes: $(VENV)/developed
	$(BIN)/python -m tests.changes $(SWITCHES) $(RESIZES)
	$(BIN)/python -m tests.changes.pipelining $(RESIZES)

# Memory, start and cost of a request on this machine; nginx and wrk are needed
# beside it for the last one. No part of the tests: a figure is no verdict.
figures: $(VENV)/developed
	$(BIN)/python -m bench.figures $(FIGURES)

# kvd beside nginx and a server in C; gcc and nginx are needed for it. Takes about
# six minutes, and leaves its results in build/bench.
bench: $(VENV)/developed
	$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info kvd/native/*.so _trial_temp* .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>&1); \
		echo "kvd needs Python 3.11 or newer; $(PYTHON) is: $$found" >&2; \
		echo "Name another one, such as: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change is served and tested without installing again.
$(VENV)/served: pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[status]'
	touch $@

$(VENV)/developed: pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -W ignore -m tests.native.build $(WARNINGS)
	touch $@ $(VENV)/served
