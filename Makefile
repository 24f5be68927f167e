# make's own work is small: a virtual environment in .venv, the tools that measuring needs
# (tools/provision.sh), and the commands that are typed most often.

PYTHON ?= python3
ARGS ?=
# .ci/run says no: counting lines slows down whatever starts processes, and CI has half an hour.
COVERAGE ?= yes

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
TEST_LOG := .cache/test.log
# Commands of the documentation that measure.
MEASURING_DOCS := tests/docs/test_measured.py

.PHONY: help bench test lint docs provision cluster cluster-down clean

help: ## Say what can be made
	@echo 'make TARGET [ARGS="options for pytest"] [PYTHON=python3.X]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

# A shorter warm-up and fewer runs of openat than by default: it has 200,000 calls a trial even so.
bench: provision $(READY) ## Measure what auditd costs on this host: about five minutes
	@$(BIN)/pytest benchmarks --syslat-testbed=local --agent=auditd --syslat-warmup-sec=10 \
		--syslat-openat-mult=1 $(ARGS)

# Every step is run, whatever the earlier ones said, and the target fails when one of them did:
# whoever reads the log of a failed run wants to know all that is wrong.
run_lint = failed=; for command in 'ruff check' 'ruff format --check' mypy; do \
		$(BIN)/$$command || failed="$$failed '$$command'"; \
	done

# The plugin is imported before pytest could start to measure it, so coverage starts pytest and
# not the other way round. What measures nothing runs on two cores, what measures runs alone. Each
# may be left with no test by options such as -k (5 is pytest's exit code then), but not both. The
# table of coverage is long; pytest's last lines are repeated below it.
test: PROVISION := --for-tests
test: provision $(READY) ## Lint, type check and test; report coverage
	@$(run_lint); \
	mkdir -p $(dir $(TEST_LOG)); \
	if [ '$(COVERAGE)' = yes ]; then \
		runner='$(BIN)/coverage run'; $(BIN)/coverage erase; \
	else \
		runner='$(BIN)/python'; \
	fi; \
	if [ -t 1 ]; then color=yes; else color=auto; fi; \
	selected=; : >$(TEST_LOG); \
	for kind in "-n2 --dist=worksteal tests/unit tests/plugin tests/docs --ignore=$(MEASURING_DOCS)" \
			'$(MEASURING_DOCS) tests/local tests/cluster'; do \
		$$runner -m pytest --color=$$color $$kind $(ARGS) 2>&1 | tee -a $(TEST_LOG); \
		case $$? in 0) selected=yes;; 5) ;; *) selected=yes; failed="$$failed pytest";; esac; \
	done; \
	[ -n "$$selected" ] || failed="$$failed pytest (no test is selected)"; \
	if [ '$(COVERAGE)' = yes ]; then \
		{ $(BIN)/coverage combine -q && $(BIN)/coverage report; } || failed="$$failed coverage"; \
	fi; \
	grep -E '(passed|failed|skipped|deselected|no tests ran|error).* in [0-9.]+s' $(TEST_LOG); \
	[ -z "$$failed" ] || { echo "make test: failed:$$failed" >&2; exit 1; }

lint: $(READY) ## Lint and type check
	@$(run_lint); [ -z "$$failed" ]

docs: $(READY) ## Build the pages of docs/ into build/docs; warnings are errors
	@$(BIN)/sphinx-build -q -W --keep-going -n docs build/docs
	@echo 'open build/docs/index.html'

provision: ## Install bpftrace, bpftool, lmbench and auditd where they are missing
	@tools/provision.sh $(PROVISION)

cluster: ## Start a Kubernetes of one node here, for tests: minutes at first, then seconds
	@tools/cluster/cluster.sh up

cluster-down: ## End that Kubernetes and put back what it changed; what was built stays
	@tools/cluster/cluster.sh down

clean: ## Remove all that make made here; measured results stay
	rm -rf .venv .cache .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Dependency groups need pip 25.1, and no distribution's venv starts with that.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'make: $(PYTHON) is missing or older than 3.11: pass PYTHON=python3.11 or newer' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'make: $(PYTHON) lacks its venv module: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q -e . --group test --group lint
	@touch $@
