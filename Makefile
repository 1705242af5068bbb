# Everything runs in .venv, which is made here and brought up to date whenever
# pyproject.toml or what is compiled changes. All that has to be there before: make, and a Python
# from 3.11 with its venv module; another than python3 is chosen with PYTHON. What the tests need
# beside these, "make test" installs, or says how.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Given to kvd: make serve ARGS="--procs 4 --store file:/srv/values"
ARGS ?=
# Given to pytest: make integration TESTS="-k roundrobin"; programs have other uses for it.
TESTS ?=
unexport TESTS
# How many integration tests run side by side; they wait more than they compute. With more,
# the whole takes longer: they displace each other from the processors' caches.
JOBS ?= 4
# And how many other tests, which compute.
CORES ?= $(shell nproc)
# What trial runs: make trial TRIAL=tests
TRIAL ?= tests.log tests.workers
# Of all chance in the tests: another one each time, unless a run is to be repeated.
ifndef SEED
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif
export SEED
# Given to the measurements: make figures FIGURES="memory start"
FIGURES ?=
# Which engines are tried: make test-engines ENGINES="ceph swift"
ENGINES ?= seaweedfs seaweedfs_etcd cluster ceph swift
# How many workers die for each policy: make crash KILLS=1000
KILLS ?= 100
# How often the power is cut: make powercuts CUTS=100
CUTS ?= 20
# How many requests, and how many times as many examples: make soak REQUESTS=1000000
REQUESTS ?= 100000
TIMES ?= 20
# How often that changes which changes while kvd serves: make changes SWITCHES=20
SWITCHES ?= 100
RESIZES ?= 20
UPGRADES ?= 10
# How often in the long form, and for how many minutes at most: make endurance HANGS=1000
RELOADS ?= 20
HANGS ?= 20
MINUTES ?= 15
# Given to the benchmark: make bench BENCH="--rounds 9 put-large get-small"
BENCH ?=

# What is compiled. A user's compiler may warn of other things than ours, so it is only
# here that a warning is an error.
NATIVE := $(wildcard kvd/native/*.[ch])
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef \
	-Wpointer-arith -Wstrict-prototypes -Wvla -Werror
# Its tests, in which so many times as many random examples are compared as elsewhere.
NATIVE_TESTS := tests/http/fast_path tests/http/wire/test_fields.py \
	tests/http/wire/test_replies.py tests/http/wire/test_targets.py \
	tests/net/test_splice.py tests/net/test_sockets.py tests/net/test_readahead.py \
	tests/net/test_reactor.py tests/dispatch/test_dispatcher.py tests/dispatch/test_lane.py \
	tests/dispatch/test_lone.py tests/dispatch/test_primitives.py tests/store/test_attribute.py \
	tests/store/test_placing.py tests/store/test_publishing.py tests/store/test_exchange.py \
	tests/store/test_unwritten.py tests/store/test_usage.py tests/store/test_candidates.py \
	tests/store/test_evicting.py tests/store/test_locks.py tests/store/test_folders.py \
	tests/store/test_reading.py tests/store/test_replaced.py tests/store/test_conferring.py \
	tests/ipc/test_row.py
SANITIZED_TIMES ?= 0.25
# What extends Twisted's reactor, ports and transports, and uses its private names; and what
# extends treq and botocore.
LIBRARIES_INSIDE := tests/net/test_private_names.py tests/net/test_reactor.py \
	tests/net/test_port.py tests/net/test_transport.py tests/net/test_listening.py \
	tests/s3/test_signing.py tests/s3/test_engine.py tests/s3/test_faults.py::CookieTests \
	tests/s3/test_http.py::StreamTests

# Hundreds of processes load kvd: its bytecode is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
# What the tests keep is below build/, as pyproject.toml says of the tools.
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/build/hypothesis
PYTEST := pytest -p tests.parallel --hypothesis-seed=$(SEED)
# What is imported is compiled then, which is a small part of what is installed.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Where tests marked integration are: to look through all the others takes as long as many
# of them. A test sees to it that there are none elsewhere. First those of which one takes
# longest: none of them is the last that runs.
INTEGRATION := tests/integration/test_docs.py tests/power_cuts tests/cli \
	tests/integration tests/changes tests/clients tests/crash tests/lab

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.PHONY: serve test prepared compiled lint docs oldest trial unit integration coverage sanitize wheel crash powercuts changes endurance alerts soak test-clients figures bench bench-clients engine test-engines prepared-engines prepared-alerts prepared-proxies share deb test-proxies clean

# Without a file of the process number, which would keep a second one, on another port,
# from starting here.
serve: $(VENV)/served
	$(BIN)/twistd -n --pidfile= kvd $(ARGS)

# Those that take longest begin first, and beside them the quick checks, one after the
# other: what computes fills the time in which integration tests wait. The quick checks
# that need nothing compiled run while that is done. In a make of its own, which sees what
# has been installed.
test: prepared
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target COMPILED=compiled \
		integration unit sanitize lint docs oldest trial
	@rm -f twisted/plugins/dropin.cache

prepared:
	@PYTHON="$(PYTHON)" tests/prepare.sh

# All tests and what they import, compiled by one process before a dozen of them would do
# the same at once: two thirds of what it takes to find the tests.
compiled: $(VENV)/developed
	@mkdir -p build
	@$(BIN)/python -m pytest --collect-only --quiet >build/tests || { cat build/tests; exit 1; }

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir build/imports

# The documents as a site, in build/docs; whatever Sphinx warns of is an error.
docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going \
		--jobs=auto --doctree-dir=build/doctrees --conf-dir=docs . build/docs

# What hangs on the inside of libraries, with the oldest ones that are allowed; all other
# tests have the newest. They stand in a folder of their own, before the newest.
oldest: $(VENV)/oldest/installed $(COMPILED)
	PYTHONPATH=$(VENV)/oldest $(BIN)/python -m pytest --quiet $(LIBRARIES_INSIDE)

$(VENV)/oldest/installed: pyproject.toml Makefile | $(VENV)/developed
	$(PIP) --no-deps --upgrade --target=$(VENV)/oldest \
		$$(sed -n 's/^ *"\(botocore\|tenacity\|treq\|twisted\)>=\([0-9.]*\)",$$/\1==\2/p' \
			pyproject.toml)
	touch $@

# pytest runs all test cases too. That they need nothing of pytest, a share shows: those
# with the most Deferreds, threads and log events. TRIAL=tests runs all of them.
trial: $(VENV)/developed
	mkdir -p build
	$(BIN)/python -m twisted.trial --temp-directory=build/trial --reporter=text $(TRIAL)

# The tests of what is compiled under AddressSanitizer and UndefinedBehaviorSanitizer, in a
# copy that is built with them.
sanitize: $(VENV)/developed $(VENV)/sanitized $(COMPILED)
	KVD_EXAMPLES_TIMES=$(SANITIZED_TIMES) tests/native/sanitize.sh $(NATIVE_TESTS)

# What is published, but for its platform's tag: in dist/, checked and tried. The tests do
# the same with one of their own. KVD_PYTHONS names further Pythons to try it with.
wheel: $(VENV)/developed
	rm -rf dist
	$(BIN)/python -m build --no-isolation >/dev/null
	KVD_WHEEL="$$(echo dist/*.whl)" $(BIN)/python -m pytest tests/integration/test_wheel.py
	$(BIN)/auditwheel show dist/*.whl

# What the unit tests reach of kvd in their own process is measured: what only daemons
# run, they cannot miss. Their files are in memory, if there is room: on a disk, those of
# the store take twice the processor time. Others test the same there (sanitize).
unit: $(VENV)/developed $(COMPILED)
	$(BIN)/coverage erase
	PYTHON="$(PYTHON)" tests/in_memory.sh $(BIN)/coverage run -m $(PYTEST) --processes=$(CORES) \
		-m "not integration" $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The real daemon, which to measure, too, would take twice as long.
integration: $(VENV)/developed $(COMPILED)
	$(BIN)/python -m $(PYTEST) --processes=$(JOBS) \
		-m integration $(INTEGRATION) $(TESTS)

# All tests, and all processes measured (but in tests marked untraced): the fork server,
# the workers and every daemon (tool.coverage.run in pyproject.toml).
coverage: export COVER_FORKS := fork
coverage: export COVER_EXITS := _exit
coverage: $(VENV)/developed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) --processes=$(JOBS) $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

# Workers killed at random under load, for each policy. The tests do the same for
# a few; this says in figures what clients saw.
crash: $(VENV)/developed
	$(BIN)/python -m tests.crash $(KILLS)

# The power cut under load, on ext4 and XFS: what was lost. The tests do the same a few
# times.
powercuts: $(VENV)/developed
	$(BIN)/python -m tests.power_cuts $(CUTS)

# The long form of what the tests do a little of: kills, power cuts, changes, many requests
# over one connection, with and without splice, and many examples of all that is random.
soak: crash powercuts changes endurance
	KVD_SOAK_REQUESTS=$(REQUESTS) $(BIN)/python -m $(PYTEST) --timeout=0 \
		tests/integration/test_bodies.py -k many_requests
	KVD_EXAMPLES_TIMES=$(TIMES) $(BIN)/python -m $(PYTEST) --timeout=0 \
		--processes=$(CORES) -m "hypothesis or explores" tests

# Clients that people have, against the true daemon: all, or CLIENTS=webdav. What Debian has
# of them is installed as in "make test"; pip and npm install the others, for them alone.
test-clients: prepared $(VENV)/developed
	@PYTHON="$(PYTHON)" CLIENTS="$(CLIENTS)" tests/prepare.sh clients
	$(BIN)/python -m tests.clients $(CLIENTS)

# The policy, the number of workers and all workers changed under load: what became of
# the requests.
changes: $(VENV)/developed
	$(BIN)/python -m tests.changes $(SWITCHES) $(RESIZES) $(UPGRADES)
	$(BIN)/python -m tests.changes.pipelining $(RESIZES)

# New code, other settings and workers that hang, under load side by side:
# make endurance UPGRADES=1000 RELOADS=1000 HANGS=1000 MINUTES=60
endurance: $(VENV)/developed
	$(BIN)/python -m tests.changes.endurance $(UPGRADES) $(RELOADS) $(HANGS) $(MINUTES)

# The metrics, and the alerts in etc/prometheus. Not by a pipe, whose status would be that of
# promtool alone: it finds no fault in metrics that are empty.
alerts: prepared-alerts $(VENV)/developed
	@mkdir -p build
	$(BIN)/python -m tests.admin.status.sample_metrics >build/metrics
	promtool check metrics <build/metrics
	promtool check rules etc/prometheus/kvd-alerts.yml
	promtool test rules etc/prometheus/kvd-alerts-test.yml

# Memory, start and cost of a request on this machine; nginx and wrk are needed
# beside it for the last one. No part of the tests: a figure is no verdict.
figures: $(VENV)/developed
	$(BIN)/python -m bench.figures $(FIGURES)

# Three nodes of a distributed engine on this machine and a kvd before them, to be tried:
# make engine ARGS="--procs 4"
engine: $(VENV)/developed
	$(BIN)/python -m tests.s3.trying $(ARGS)

# What takes longer with real engines than a build may, each of three nodes: all that the
# tests do with one, a node that is killed under load, and figures. And the machines of
# etc/cluster, in network namespaces. make test-engines ENGINES=ceph
test-engines: prepared-engines $(VENV)/developed \
		$(if $(filter swift,$(ENGINES)),build/swift/installed)
	$(BIN)/python -m pytest --verbose --capture=no $(ENGINES:%=tests/s3/engines/%.py)

# What is needed for one target beside what "make test" needs.
prepared-alerts prepared-proxies:
	@PYTHON="$(PYTHON)" tests/prepare.sh $(@:prepared-%=%)

prepared-engines:
	@PYTHON="$(PYTHON)" tests/prepare.sh $(ENGINES)

# In an environment of its own: its servers are none of kvd's parts.
build/swift/installed: | $(BIN)/python
	$(PYTHON) -m venv build/swift
	build/swift/bin/python -m pip install --quiet --disable-pip-version-check swift==2.38.3
	touch $@

# The settings for reverse proxies in docs/operating.rst, with the real programs.
test-proxies: prepared-proxies $(VENV)/developed
	$(BIN)/python -m pytest --verbose tests/integration/proxy_programs.py

# kvd beside nginx and a server in C; gcc, nginx and ccache are needed for it. Takes about
# twenty minutes, and leaves its results in build/bench.
bench: $(VENV)/developed
	$(BIN)/python -m bench $(BENCH)

# What users of client programs notice: ccache, restic and rclone, with kvd and without.
bench-clients: $(VENV)/developed
	$(BIN)/python -m bench.clients $(BENCH)

# Manual pages and completions, as below /usr/share.
share: $(VENV)/developed
	$(BIN)/python -m kvd.cli.manual build/share

# A package for Debian, in dist/, of what is committed; build-essential, debhelper,
# python3-dev and python3-venv are needed for it, on the release that it is for.
deb:
	rm -rf build/deb
	mkdir -p build/deb/kvd dist
	git archive HEAD | tar -x -C build/deb/kvd
	cd build/deb/kvd && dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes
	mv build/deb/kvd_*.deb dist/

clean:
	rm -rf $(VENV) build dist *.egg-info kvd/native/*.so _trial_temp*
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>&1); \
		echo "kvd needs Python 3.11 or newer; $(PYTHON) is: $$found" >&2; \
		echo "Name another one, such as: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)

# Editable, so that a change is served and tested without installing again.
$(VENV)/served: pyproject.toml $(NATIVE) | $(VENV)/pip
	$(PIP) -e '.[status]'
	touch $@

# The newest pip takes a third of the time of the one that Python brings. With it comes what
# compiles kvd, so that this happens while the rest is fetched.
$(VENV)/pip: pyproject.toml | $(BIN)/python
	PYTHONPATH="$$($(BIN)/python tests/first_pip.py)" \
		$(PIP) --upgrade pip "$$(sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml)"
	touch $@

# Compiled once: pip, whose compiler fails here, leaves that to the next rule.
$(VENV)/installed: pyproject.toml $(VENV)/pip
	CC=false PYTHONWARNINGS=ignore $(PIP) --no-build-isolation -e '.[dev]'
	touch $@

$(VENV)/native: $(NATIVE) $(VENV)/pip
	$(BIN)/python -W ignore -m tests.native.build $(WARNINGS)
	touch $@

$(VENV)/sanitized: tests/native/sanitized.sh $(VENV)/native
	tests/native/sanitized.sh
	touch $@

$(VENV)/developed: $(VENV)/installed $(VENV)/native
	touch $@ $(VENV)/served
