# Both commands of a fresh machine, `make demo` and `make test`, need Python 3.11 or newer and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Tests start many processes, and each would compile the same files anew.
test skew: export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz fuzz-api chaos skew check lock bench pictures dist format clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.ready ## the main job on the embedded Postgres: twelve events arrive, signed and verified
	@$(BIN)/aetherflow-hooks demo

test: $(VENV)/.ready ## every test, on the embedded Postgres; ARGS="-k retry" chooses, ARGS="-n 8" suits more cores than two
	$(BIN)/pytest --numprocesses 3 --dist loadscope $(ARGS)

fuzz: $(VENV)/.ready ## property tests with 20,000 cases each, some minutes; ARGS="-k url" chooses
	$(BIN)/pytest -m hypothesis --hypothesis-profile fuzz $(ARGS)

fuzz-api: $(VENV)/.ready ## 10,000 requests to the API, made from its document; ARGS=10: so many for each operation
	$(BIN)/python -m tests.web.fuzz $(ARGS)

chaos: $(VENV)/.ready ## engines, Postgres and receivers under faults, 200 runs in half an hour; ARGS="--seeds 7"
	$(BIN)/python -m tests.chaos $(ARGS)

skew: $(VENV)/.ready ## the engine of an older commit on the schema of today, through all stories; ARGS="v0.1.0"
	$(BIN)/python -m tests.skew $(ARGS)

check: $(VENV)/.ready ## format, lint, types, layers and known weaknesses, without changing a file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit

lock: $(VENV)/.ready ## pin what CI installs to what is installed here
	$(BIN)/python -m pip freeze --exclude-editable > .ci/constraints.txt

bench: $(VENV)/.ready ## rate, latency and cost beside other queues; ARGS="--help" tells what else
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/aetherflow-hooks bench $(ARGS)

pictures: $(VENV)/.ready ## the pictures of the dashboard anew, with the Chromium of this machine
	$(BIN)/python -m tests.web.pictures

dist: $(VENV)/.ready ## what is published: a wheel and an sdist, the same bytes wherever they are built
	$(BIN)/python -m hatchling build -d dist

format: $(VENV)/.ready ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was made here
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist

# pip older than 25.1 knows no dependency groups, so it is brought up to date first.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[embedded]" --group dev
	@touch $@
