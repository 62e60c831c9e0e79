# SPDX-License-Identifier: Apache-2.0
# `make test` and `make matrix` do everything from a fresh clone on; `make help` lists the rest.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
#: The kernels on which `make test` runs what needs a virtual machine.
TEST_KERNELS := 5.10 6.12 7.3
#: And the one on which it also runs all scenarios on the other kind of machine, for their verdicts
#: to be the same.
VIRTME_KERNEL := 6.12
C_FILES = $(shell git ls-files 'bpf/*.c' 'bpf/*.h' 'vm/*.c')

##@ The two that do everything

.PHONY: test
test: lint unit vmtest ## Set up, then pass all of the project's tests

.PHONY: matrix
matrix: setup ## Set up, then run every scenario on every kernel that is fetched or built
	@$(BIN)/hookproof run --kernel all

##@ Parts of make test

.PHONY: lint
lint: setup ## Check format, style and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)

.PHONY: unit
unit: setup ## Run the tests that need no virtual machine
	@$(BIN)/pytest tests -m "not vm" --numprocesses 2

.PHONY: vmtest
vmtest: setup ## Run the tests and the scenarios that need one, on some kernels
	@$(BIN)/pytest tests/test_inside.py --numprocesses 2 --dist load
	@$(BIN)/pytest tests --ignore tests/test_inside.py -m vm --numprocesses 2 --dist loadfile
	@$(BIN)/hookproof run --kernel $(VIRTME_KERNEL) --machine virtme
	@$(BIN)/hookproof run $(TEST_KERNELS:%=--kernel %)

##@ Work on the project

.PHONY: setup
setup: ## Install what is missing, build what has changed
	@tools/setup.sh

.PHONY: format
format: setup ## Put Python and C into the project's format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix
	@$(BIN)/clang-format -i $(C_FILES)

.PHONY: doctor
doctor: setup ## Say what this host has and lacks
	@$(BIN)/hookproof doctor

.PHONY: kernels
kernels: setup ## Fetch and verify the kernels, for work offline
	@$(BIN)/hookproof kernels fetch

.PHONY: mutants
mutants: setup ## Put each known bug into the agent, and see scenarios fail; takes minutes
	@$(BIN)/hookproof mutants $(TEST_KERNELS:%=--kernel %)

.PHONY: bench
bench: setup ## Measure ours beside virtme-ng; takes three hours
	@$(BIN)/hookproof bench

.PHONY: lock
lock: setup ## Resolve the Python dependencies anew into requirements.lock
	@$(BIN)/python -m tools.lock

.PHONY: clean
clean: ## Remove all that was made here, except fetched kernels
	@rm -rf --one-file-system .venv .setup build results *.egg-info
	@git clean -q -X -d --force -- bpf hookproof refagent tests tools vm

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } \
		/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
