# LedgerFS. `make run` and `make test` work on a fresh Debian 12 machine; both install what the system lacks.
# Everything is made inside this directory: .venv, the C core beside its sources, demo-store, ledgerfs (the mount).

VENV := .venv
BIN := $(VENV)/bin
CORE := ledgerfsd/core/_core.abi3.so
REQUESTS := ledgerfsd/vfs/_requests.abi3.so
GENERATED := ledgerfsd/core/csrc/lfs_codes.h ledgerfsd/core/csrc/lfs_currencies.h
CORE_SOURCES := $(filter-out $(GENERATED),$(wildcard ledgerfsd/core/csrc/*.[ch] ledgerfsd/core/csrc/*/*.[ch])) $(wildcard ledgerfsd/data/*.tsv) \
	ledgerfsd/core/build.py
METADATA := pyproject.toml setup.py setup.cfg tools/make-venv

.PHONY: help run stop test check bench bench-quick bench-report core dev docs wheel clean
.DEFAULT_GOAL := help

help:
	@echo 'make run     mount a demo ledger at ./ledgerfs and print what to try'
	@echo 'make stop    unmount it (the store ./demo-store stays)'
	@echo 'make test    every test, with a real mount'
	@echo 'make check   format, lint, types, import rules and the fast tests: about a minute'
	@echo 'make bench   benchmarks: medians and ratios; `make bench-quick`: a tenth of the work, one run of each'
	@echo 'make bench-report   write docs/BENCHMARKS.md and its plots anew from bench/results/'
	@echo 'make core    build the C core in place'
	@echo 'make docs    write the man pages anew from --help'
	@echo 'make wheel   build a wheel into dist/'
	@echo 'make clean   remove what was built (never the store)'

run:
	@tools/install-system
	@$(MAKE) -s --no-print-directory $(VENV)/ready-run $(CORE) $(REQUESTS)
	@tools/demo start

stop:
	@tools/demo stop

dev:
	@tools/install-system test
	@$(MAKE) -s --no-print-directory $(VENV)/ready-dev $(CORE) $(REQUESTS)

test: dev
	@tools/need-fuse
	$(BIN)/pytest $(PYTEST_ARGS)

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q -n auto -m 'not slow' tests/unit $(PYTEST_ARGS)

bench: dev
	@tools/need-fuse
	$(BIN)/python bench/run.py $(BENCH_ARGS)

bench-quick:
	@$(MAKE) -s --no-print-directory bench BENCH_ARGS='--quick $(BENCH_ARGS)'

bench-report: dev
	$(BIN)/python -m bench.report $(BENCH_ARGS)

core: $(VENV)/ready-run $(CORE) $(REQUESTS)

docs: dev
	$(BIN)/python tools/make-man docs/man

wheel: dev
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# Stamps, so that a second run costs nothing. ready-dev implies ready-run.
$(VENV)/ready-run: $(METADATA)
	@tools/make-venv run

$(VENV)/ready-dev: $(METADATA)
	@tools/make-venv dev

$(CORE): $(CORE_SOURCES)
	@echo 'building the C core'
	@$(BIN)/python -m ledgerfsd.core.build

# As a script: the package that it belongs to wants what it builds.
$(REQUESTS): ledgerfsd/vfs/build.py ledgerfsd/vfs/csrc/requests.c
	@$(BIN)/python ledgerfsd/vfs/build.py

clean:
	rm -rf build dist ledgerfs.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(REQUESTS) ledgerfsd/vfs/_requests.c ledgerfsd/vfs/*.o $(CORE) $(GENERATED) ledgerfsd/core/_core.c ledgerfsd/core/csrc/*/*.o ledgerfsd/core/_core.o
	find ledgerfsd tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
