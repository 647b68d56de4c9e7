# Each target does all of its own set-up; Python 3.11 or later and make are all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEPLOY := $(VENV)-deploy
# Tests wait most of the time: more processes than processors.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(max(8, os.cpu_count() or 1))')
PYTEST := $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=worksteal
# What an interpreter could change: the engine, what is promised to other programs, how processes live and end.
SHORT := tests/unit tests/test_protocol.py tests/test_library.py tests/test_concurrency.py tests/test_delivery.py \
	tests/test_shutdown.py tests/test_cli.py tests/test_topics.py tests/test_supervisor.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := redis_worker benchmarks deploy examples mutation tests mkdocs_hooks.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-short bench bench-peers curves chaos mutate fuzz soak two-versions lint format types clean screenshots docs dist newcomer workflow deploy-check lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## See it work: two workers, thousands of tasks, a kill -9, nothing lost
	@$(BIN)/redis-worker demo

test: $(VENV)/.dev ## Run the test suite, some seven minutes on two cores
	@$(PYTEST) --servers=first -m 'not long' $(ARGS)

test-all: $(VENV)/.dev ## Run all of it, what servers could do differently on each there is
	@$(PYTEST) $(ARGS)

test-short: $(VENV)/.dev ## Run a part, as for another Python: make test-short PYTHON=python3.13 VENV=.venv-3.13
	@$(PYTEST) --servers=first -m 'not long' $(ARGS) $(SHORT)

chaos: $(VENV)/.demo ## Break workers, network and server in each mode, and show that nothing is lost: a quarter of an hour
	@mkdir -p build
	@for mode in pool topics at-most-once cron cluster; do \
		echo "$$mode:"; $(BIN)/redis-worker chaos --mode $$mode --report build/chaos-$$mode.html $(ARGS) || exit 1; \
	done
	@echo "pool, with a replica:"; $(BIN)/redis-worker chaos --replica --report build/chaos-replica.html $(ARGS)

mutate: $(VENV)/.dev ## Break promises on purpose, one by one: tests must notice (ARGS=NAME… for some)
	@$(BIN)/python -m mutation $(ARGS)

bench: $(VENV)/.dev ## Measure speed and memory, beside a hand-written loop
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.dev ## Measure other workers for Redis beside it, into the pages: some minutes, ARGS='arq rq' for some
	@$(BIN)/python -m benchmarks.peers $(if $(ARGS),$(ARGS),--write docs/benchmarks.md --rates README.md --rates README.zh-CN.md)

curves: $(VENV)/.bench ## Draw the curves of docs/performance.md: some minutes, ARGS='backlog' for some
	@$(BIN)/python -m benchmarks.curves $(ARGS)

screenshots: $(VENV)/.dev ## Take the pictures of the dashboard for docs/, with Chromium: two minutes
	@$(BIN)/python -m tests.screenshots $(ARGS)

docs: $(VENV)/.dev ## Build the site in build/site, without a warning
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "build/site/index.html"

dist: $(VENV)/.dev ## Build wheel and sdist, and use each in an empty environment
	@$(BIN)/python -m tests.distribution

newcomer: $(VENV)/.dev ## Time the way from a clone to the first result of one's own function, by the README
	@$(BIN)/python -m tests.newcomer

workflow: ## Check .github/workflows, with Go
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7

fuzz: $(VENV)/.dev ## Feed a million arbitrary inputs to all that reads foreign bytes: INPUTS=, ARGS='--seed N'
	@$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) $(ARGS)

soak: $(VENV)/.dev ## Ten minutes of load and faults, and whether anything grows: MINUTES=, ARGS='--seed N'
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(ARGS)

two-versions: $(VENV)/.dev ## Workers of the parent commit and of today on one queue: ARGS='--commit C'
	@$(BIN)/python -m tests.two_versions $(ARGS)

deploy-check: $(DEPLOY)/.done ## Run or validate each file of deploy/: image, Compose, Kubernetes, systemd, alerts; as root
	@$(DEPLOY)/bin/python -m deploy.checks $(ARGS)

lock: $(DEPLOY)/.done ## Renew the versions and hashes of the image, and the alerts for Kubernetes
	@$(DEPLOY)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
		--custom-compile-command 'make lock' --extra all pyproject.toml deploy/docker/requirements.in \
		--output-file deploy/docker/requirements.lock
	@$(DEPLOY)/bin/python -m deploy.checks.rules

lint: $(VENV)/.dev ## Check style, types and the layers of the house
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## Put the code in the house's style
	@$(BIN)/ruff check --quiet --fix $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

clean: ## Remove what these targets have made
	rm -rf .venv* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .fuzz

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "redis_worker needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV), with what tests and checks need …"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) -e '.[bench]'
	@touch $@

# An environment of its own: some of its packages bring a plugin for pytest.
$(DEPLOY)/.done: pyproject.toml
	@echo "Installing into $(DEPLOY), with what the checks of deploy/ need …"
	@$(PYTHON) -m venv $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[deploy]'
	@touch $@
