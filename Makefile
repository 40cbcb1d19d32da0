# Everything one does with Tenure. Needs python3 (3.11 or newer) with venv and pip; what more a target
# needs, its line in `make help` says. PY=python3.13 picks the interpreter, ARGS=... goes to the program run.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= .run/data
ARGS ?=
OPS ?= 500
SEED ?= 0
# kills, faults and mutated requests in their short form: a part of safety-ci, too long for `make test`
FAULTS := tests/faults tests/replay/test_mutations.py
# the folder of initdb and postgres of the oldest version that is supported
OLD_PG ?= /usr/lib/postgresql/15/bin
# Python packages only from locks with hashes, and nothing outside them.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
EDITABLE = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

.PHONY: help run test check format e2e e2e-all heavy conformance safety safety-ci faults bench docs lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

run: $(VENV)/.ok-run ## serve on 127.0.0.1:5000 with SQLite and a folder (DATA=.run/data)
	@$(BIN)/tenure serve --data-dir $(DATA) $(ARGS)

test: $(VENV)/.ok-dev ## all tests, on real Postgres and SeaweedFS that come as Python packages
	$(BIN)/pytest -n 2 --dist loadfile -m "not e2e and not slow" $(FAULTS:%=--ignore %) $(ARGS)

check: $(VENV)/.ok-dev ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd src && ../$(BIN)/mypy --config-file ../pyproject.toml -p tenure
	$(BIN)/lint-imports

format: $(VENV)/.ok-dev ## rewrite the sources in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: $(VENV)/.ok-dev ## real clients against real processes; needs root, docker, dockerd, podman, buildah, skopeo; and Go, or takes it
	PYTHONPATH=tests $(BIN)/python -m helpers.client_programs
	$(BIN)/pytest tests/e2e -n 2 --dist loadgroup -m "e2e and not slow" $(ARGS)

e2e-all: $(VENV)/.ok-dev ## the long form of e2e too (ARGS=--record writes docs/clients.md)
	PYTHONPATH=tests $(BIN)/python -m helpers.client_programs all
	$(BIN)/pytest tests/e2e -n 2 --dist loadgroup -m e2e $(ARGS)

heavy: $(VENV)/.ok-dev ## layers of 5 GiB and a hundred pushes at once, in bounded memory; needs 15 GiB of disk
	$(BIN)/pytest tests/heavy -m slow $(ARGS)

conformance: $(VENV)/.ok-dev ## the official OCI suite on both profiles; needs Go, or takes it as a Python package
	$(BIN)/python conformance/run.py $(ARGS)

safety: $(VENV)/.ok-dev ## the safety tests with many examples (an hour or more)
	TENURE_TEST_EXAMPLES=2000 $(BIN)/pytest tests/safety --timeout 3600 $(ARGS)

safety-ci: $(VENV)/.ok-dev ## the same with some more than in `make test`, kills and faults, and all of storage on Postgres 15 if OLD_PG has it
	TENURE_TEST_EXAMPLES=150 $(BIN)/pytest tests/safety -n 2 --dist loadfile --timeout 900 $(ARGS)
	$(BIN)/pytest $(FAULTS) -m "not slow" -n 2 --dist load --timeout 300
	@if [ -x $(OLD_PG)/postgres ]; then $(OLD_PG)/postgres --version; else \
		echo "no $(OLD_PG)/postgres (apt-get install postgresql-15): the oldest supported Postgres is not tested"; exit $(if $(CI),1,0); fi
	@! [ -x $(OLD_PG)/postgres ] || TENURE_TEST_PG_BIN=$(OLD_PG) $(BIN)/pytest \
		tests/suites tests/safety tests/migration -m "not slow" -n 2 --dist loadfile --timeout 900

faults: $(VENV)/.ok-dev ## pushes under kills and faults, OPS=500 on each profile; SEED=n draws the same again
	TENURE_TEST_FAULT_OPS=$(OPS) TENURE_TEST_FAULT_SEED=$(SEED) $(BIN)/pytest tests/faults/test_pushes.py -s $(ARGS)

.PHONY: fuzz
fuzz: OPS = 100000
fuzz: SEED = $(shell date +%s)
fuzz: $(VENV)/.ok-dev ## what clients send with mistakes in it, OPS=100000 on both profiles; SEED=n draws the same again
	TENURE_TEST_FUZZ_OPS=$(OPS) TENURE_TEST_FUZZ_SEED=$(SEED) $(BIN)/pytest tests/replay/test_mutations.py -n 2 -rP $(ARGS)

bench: $(VENV)/.ok-dev ## costs beside distribution v3, in one run; needs Go
	$(BIN)/python bench/run.py $(ARGS)

docs: $(VENV)/.ok-dev ## pages made from the code: configuration, schema, API
	$(BIN)/python -m tenure.config.document docs/configuration.md
	$(BIN)/python -m tenure.api.describe >.page && mv .page docs/api.md
	$(BIN)/python -m tenure.storage.meta.describe >.page && mv .page docs/schema.md

lock: ## both lock files anew; takes uv as a Python package
	$(PY) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-lock/bin/uv lock --quiet --upgrade
	$(VENV)-lock/bin/uv export --quiet --frozen --no-dev --group build --no-emit-project --no-annotate --no-header -o requirements.lock
	$(VENV)-lock/bin/uv export --quiet --frozen --group test --group build --group dev --no-emit-project --no-annotate --no-header -o requirements-dev.lock
	rm -rf $(VENV)-lock
	@! grep -n '://' requirements.lock requirements-dev.lock || { echo "a lock file names a host" >&2; exit 1; }

clean: ## remove what the targets made, data of `make run` excepted
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Tenure needs Python 3.11 or newer; PY=python3.13 make ... picks one" >&2; exit 1; }
	@$(PY) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PY) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.ok-run: requirements.lock pyproject.toml | $(BIN)/python
	@if [ $(VENV)/.ok-dev -nt requirements.lock ] && [ $(VENV)/.ok-dev -nt pyproject.toml ]; then :; \
	 else $(INSTALL) -r requirements.lock && $(EDITABLE); fi
	@touch $@

$(VENV)/.ok-dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@$(INSTALL) -r requirements-dev.lock
	@$(EDITABLE)
	@touch $@
