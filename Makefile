# Everything runs in .venv, which is made when first needed: see tools/bootstrap.py.

# The first Python that starts, is new enough and can make environments; else any, which then says what is needed.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; exit; fi; done; \
	command -v python3 || command -v python || echo python3)
DEMO_PORT ?= 8000
export DEMO_PORT
SOAK_SECONDS ?= 1800
# More workers than this would only wait for one another.
PYTEST ?= -m pytest --numprocesses auto --maxprocesses 8
IN := $(PYTHON) tools/bootstrap.py

.PHONY: help demo test lint docs audit bench bench-gate bench-skew check chaos chaos-short chaos-mutants soak structure
.DEFAULT_GOAL := help

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: ## start the demo on port $DEMO_PORT (8000), with a PostgreSQL of its own
	@$(IN) demo example_project/demo.py

test: ## run all tests, in parallel
	@$(IN) test $(PYTEST)

lint: ## check style, types and the layers
	@$(IN) dev tools/lint.py

audit: ## look for known vulnerabilities in what is installed, where the advisory service can be reached
	@$(IN) dev tools/audit.py

docs: ## build the documentation into docs/_build
	@$(IN) dev -m sphinx -W --keep-going -q docs docs/_build

bench: ## measure delivery beside the limit and beside hand-written consumers: about 45 minutes; BENCH="--quick" for 3
	@$(IN) bench benchmarks/delivery.py $(BENCH)

bench-gate: ## measure what the migration gate costs, beside migrate_schemas --check
	@$(IN) demo benchmarks/gate.py

bench-skew: ## measure what everything costs in a tenant with a room of a million messages; SKEW="--size 20000" for less
	@$(IN) demo benchmarks/skew.py $(SKEW)

chaos: ## break everything under load, over a million deliveries: about 45 minutes
	@$(IN) test -m tests.chaos --all

chaos-short: ## break three things under load: under 4 minutes
	@$(IN) test -m pytest -q -m chaos --numprocesses 0 -rP tests/chaos/test_faults.py

chaos-mutants: ## show that the checker finds servers that are wrong
	@$(IN) test -m tests.chaos --mutants

soak: ## serve a steady load for $SOAK_SECONDS (1800); memory must not grow
	@$(IN) test -m tests.chaos --soak --seconds $(SOAK_SECONDS)

structure: ## write down what the migrations make, with which the gate compares schemas
	@$(IN) demo tools/describe_structure.py

check: lint docs test ## all of the above but the demo
