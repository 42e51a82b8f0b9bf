# Every target does its own set-up: a machine with Python 3.11+, venv and make is enough.
PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.run-installed
DEV := .venv/.dev-installed
PURE := tests/wire tests/quota tests/translate tests/pool tests/reports
PREFIX ?= /opt/relay
EXTRAS ?=
COMPILED := build/compiled
COMPILED_TESTS ?= tests/wire tests/quota tests/net tests/gateway tests/pool tests/translate tests/faults tests/durability tests/store
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)

# A run starts a hundred processes: none should have to compile what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run serve test thorough clients attacks lint coverage fmt bench profile cost lock clean install compiled test-compiled

help:                  ## the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

run: $(RUN)            ## the demo: simulated upstream, relay and one key
	$(BIN)/relay demo

serve: $(RUN)          ## the relay with ./relay.toml
	$(BIN)/relay serve

install:               ## relay in a folder, compiled where there is a C compiler: PREFIX=/opt/relay EXTRAS=cluster
	@$(PYTHON) deploy/prefix.py "$(PREFIX)" $(if $(EXTRAS),--extras "$(EXTRAS)")

compiled: $(COMPILED)/.compiled  ## a copy whose path of a request is compiled, in build/compiled

test-compiled: compiled  ## the tests of the path of a request, on that copy
	cd $(COMPILED) && PYTHONPATH="$$PWD" $(CURDIR)/$(BIN)/python -m pytest -n 4 --dist worksteal -m 'not long and not alone and not thorough and not clients' $(COMPILED_TESTS)

test: $(DEV)           ## every promise once
	$(BIN)/python -m pytest -n 4 --dist worksteal -m 'not long and not alone and not thorough and not clients'
	$(BIN)/python -m pytest -m 'alone and not long and not thorough and not clients' $(ALONE)

thorough: $(DEV)       ## cells of matrices, examples of properties and slow runs that make test leaves out
	$(BIN)/python -m pytest -n auto --dist worksteal --hypothesis-profile=thorough -m '(thorough or hypothesis) and not long and not alone and not clients'

clients: $(DEV)        ## real clients of other makers in full; their table in relay/docs/clients.md
	RELAY_CLIENT_ROWS=tests/clients/matrix/rows $(BIN)/python -m pytest -m clients tests/clients
	$(BIN)/python -m tests.clients.matrix.table

lint: $(DEV)           ## style, types, layers, sizes and names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/gates.py

attacks: $(DEV)        ## every finding of a hostile review, beside an honest caller
	$(BIN)/python -m tests.attacks.suite

coverage: $(DEV)       ## every branch of the pure packages, reached by their own tests
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n auto --dist worksteal --hypothesis-profile=coverage -m 'not long and not alone' $(PURE)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

fmt: $(DEV)            ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)          ## relay against nginx, figures on screen and in bench/results/
	$(BIN)/python -m bench

profile: $(DEV)        ## relay's flame graphs, its costs by function and part, its allocations
	$(BIN)/python -m bench profile

cost: $(DEV)           ## instructions per request under valgrind, against the record
	$(BIN)/python -m bench.cost

.PHONY: dist
dist: $(RUN)           ## wheel, sdist, relay.pyz, install.sh and checksums, in dist/
	$(BIN)/python deploy/build.py

lock:                  ## renew the lock files: from pyproject.toml, and those of clients for the tests
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 pyproject.toml requirements-build.in -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra cluster pyproject.toml requirements-build.in -o requirements-cluster.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra compile pyproject.toml requirements-build.in -o requirements-compile.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra dev pyproject.toml requirements-build.in -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 tests/clients/litellm/requirements.in -o tests/clients/litellm/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 tests/clients/hermes/requirements.in -o tests/clients/hermes/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 tests/clients/matrix/python/requirements.in -o tests/clients/matrix/python/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 tests/clients/matrix/instructor/requirements.in -o tests/clients/matrix/instructor/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 tests/clients/matrix/aider/requirements.in -o tests/clients/matrix/aider/requirements.lock

$(RUN): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV): requirements-dev.lock $(RUN)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(COMPILED)/.compiled: $(DEV) $(shell find relay tests bench deploy -type f ! -path '*/__pycache__/*' ! -path '*/.venv/*' ! -path '*/node*' ! -path '*/results/*') pyproject.toml
	$(BIN)/python deploy/compile.py $(COMPILED)
	touch $@

clean:
	rm -rf build
	rm -rf tests/clients/*/.venv tests/clients/matrix/*/.venv
	rm -rf tests/clients/node tests/clients/matrix/node/node_modules tests/clients/matrix/node/installed
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
