# Every target makes the virtual environment that it needs, in .venv, when there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make demo` runs on, and the folder whose files it reads (default: the standard library).
# Only from the command line: a DATABASE_URL of the environment is that of somebody's application.
ifneq ($(origin DATABASE_URL),command line)
override DATABASE_URL :=
endif
ifneq ($(origin WEB),command line)
override WEB :=
endif
ifneq ($(origin FOLDER),command line)
override FOLDER :=
endif

# Where the documentation is published, and as which version.
SITE_URL ?= http://localhost:8000/
DOCS_VERSION ?=
DOCS_ALIAS ?= latest
# The development environment can build it as well.
SITE_NEEDS := $(or $(wildcard $(VENV)/.dev),$(VENV)/.docs)
SITE_VERSION := $(if $(DOCS_VERSION),--version '$(DOCS_VERSION)')

# Pythons that are there, but not on the path.
PYENV := $(wildcard $(HOME)/.pyenv/versions/*/bin/python3.1[123])

.PHONY: help demo test test-all test-rest test-second test-browser screenshots pictures docs docs-serve check bench bench-peers mutants matrix clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(if $(WEB),$(VENV)/.demo-web,$(VENV)/.demo) ## Run some 1,500 real jobs on SQLite and watch (DATABASE_URL=… for another database, WEB=1 for the dashboard)
	@$(BIN)/python examples/demo.py $(if $(DATABASE_URL),--database-url '$(DATABASE_URL)') $(if $(FOLDER),--folder '$(FOLDER)') $(if $(WEB),--web)

PYTEST := $(BIN)/python -m pytest
# As the tests wait for more than half of their time, two cores can do more than two processes. Slow ones wait
# less, or measure time.
PROCESSES := 4
# Tests of one file run one after another. The order of the files is that of tests/conftest.py.
PARALLEL := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# What depends on how statements are run: the fast path, the SQLAlchemy.
STATEMENTS := tests/suite tests/runner
# A node does the same on SQLite, whose statements tests/suite runs, except for the sessions of jobs.
NODES := not (runner and not session and ([sqlite or -sqlite))

# The oldest SQLAlchemy that is supported. With all other packages from the environment, it takes seconds to install.
OLDEST := $(abspath $(VENV))/sqlalchemy-2.0.40

# Else each of the processes that tests start would compile the library again, and each of pytest-xdist the tests.
test test-rest test-second test-browser: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev ## Run the tests but the slow ones, on SQLite and on a PostgreSQL that they start (ARGS=… for some)
	$(PYTEST) $(or $(ARGS),$(PARALLEL) -m 'not slow and not second_driver and not second_database')

test-all: test test-rest test-second ## Run all tests, those of `make test` first

# In the last two, client calls and nodes run through one driver of PostgreSQL each.
test-rest: $(VENV)/.dev $(OLDEST) ## Run what `make test` leaves out: slow tests, without the fast path, SQLAlchemy 2.0.40
	$(PYTEST) --numprocesses 3 --dist worksteal -m 'slow and not alone and not second_driver and not second_database'
	$(PYTEST) -m 'alone and not second_database'
	OBAN_FAST_PATH=off $(PYTEST) $(PARALLEL) --each-driver -m 'not slow and not execution' -k 'not asyncpg and $(NODES)' $(STATEMENTS)
	PYTHONPATH=$(OLDEST) $(BIN)/python -c 'import sqlalchemy; assert sqlalchemy.__version__ == "2.0.40", sqlalchemy.__version__'
	PYTHONPATH=$(OLDEST) $(PYTEST) $(PARALLEL) --each-driver -m 'not slow and not execution' -k 'not ((runner or suite) and psycopg) and not (suite and ([sqlite or -sqlite)) and $(NODES) or connections' $(STATEMENTS) tests/drivers tests/fast_path tests/migration

# One process for each database, with a browser and a server of its own.
test-second: $(VENV)/.dev ## Run the tests that `make test` runs on one of both databases on the other one
	$(PYTEST) $(PARALLEL) -m 'second_database and not second_driver'

test-browser: $(VENV)/.dev docs ## Run the tests of the dashboard and of the documentation in Chromium (apt-get install chromium; ARGS=… for some)
	$(PYTEST) --numprocesses 2 $(or $(ARGS),-m 'not second_database' tests/browser)

screenshots: $(VENV)/.dev ## Take pictures of the dashboard, in build/screenshots (ARGS=… for some, by name)
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

pictures: $(VENV)/.dev ## Take the pictures of the README and of the documentation again
	$(BIN)/python -m tests.browser.pictures

# Its links lead to other files of the site. The page is not committed, and the search leaves it out: one section of it
# would be a result for almost every question.
docs/changelog.md: CHANGELOG.md Makefile
	printf -- '---\nsearch:\n  exclude: true\n---\n\n' > $@
	sed 's#](docs/#](#g' $< >> $@

docs: $(SITE_NEEDS) docs/changelog.md ## Build the documentation's site into build/site (DOCS_VERSION=… for a version of it, in build/versions)
	$(BIN)/python -m tools.site configure --url '$(SITE_URL)' $(SITE_VERSION)
	$(if $(DOCS_VERSION),MIKE_DOCS_VERSION='$(DOCS_VERSION)') $(BIN)/zensical build --strict --clean --config-file .zensical.toml
	$(if $(DOCS_VERSION),$(BIN)/python -m tools.site versions $(SITE_VERSION) --alias '$(DOCS_ALIAS)')

docs-serve: $(SITE_NEEDS) docs/changelog.md ## Show the documentation's site, built again at each change
	$(BIN)/zensical serve

check: $(VENV)/.dev ## Lint, formatting, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev ## Measure against raw asyncpg on the same table, in one run
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.dev $(VENV)/peers ## Measure against other Python queues, in about an hour (PYTHON=python3.12, which one of them needs; ARGS='--adapters ours,raw' for some)
	$(BIN)/python -m benchmarks.peers --peers $(VENV)/peers/bin/python $(ARGS)

mutants: $(VENV)/.dev ## Plant bugs into a copy of the library and see that the tests find them
	$(BIN)/python -m tests.mutants $(ARGS)

matrix: $(VENV)/.dev ## Run the tests on each SQLAlchemy and Python that is supported and found (ARGS=… for pytest)
	$(BIN)/tox run $(if $(PYENV),--discover $(PYENV)) $(if $(ARGS),-- $(ARGS))

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .tox dist build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(OLDEST): | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ sqlalchemy==2.0.40

# One of the other queues is called `oban`, too.
$(VENV)/peers: benchmarks/peer_harness/requirements.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.demo-web: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[web]'
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
