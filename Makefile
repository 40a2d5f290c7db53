# What people and CI run. `make` alone lists it.

PYTHON ?= python3
PACKAGES ?=
SECONDS ?= 300

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check serve bench bench-all bench-serving fuzz reliability venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "All of them work in $(VENV), which is made first where it is missing (PYTHON=python3, 3.11 or newer)."

demo: $(INSTALLED) ## train, export, prove, serve and classify real images, in about two minutes
	@$(BIN)/python scripts/demo.py

# Side by side, whole files, as they come: by default those with the most tests would go first, and the longest, which
# have few, last. At most four processes, as each holds TensorFlow. What is measured against the clock runs alone.
test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		--ignore tests/reliability
	$(BIN)/python -m pytest tests/reliability

check: $(INSTALLED) ## lint (the Dockerfile too), check the format and the types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

serve: $(INSTALLED) ## serve the bundled models on http://127.0.0.1:8000
	$(BIN)/pdeinfer serve

bench: $(INSTALLED) ## measure, within five minutes, the bundled models, PACKAGES="build/mnist-pde ..." and the bars
	$(BIN)/python -m benchmarks.quick $(PACKAGES)
	$(BIN)/python -m benchmarks.speed --quick

bench-all: $(INSTALLED) ## install what is compared, measure everything and write docs/performance.md
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check \
		--constraint requirements/constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.document

bench-serving: $(INSTALLED) ## install other servers, measure ours beside them and write docs/serving-performance.md
	$(BIN)/python -m benchmarks.serving.document

fuzz: $(INSTALLED) ## attack the decoder, the parser and the server for SECONDS=300 each
	PDEINFER_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s tests/fuzz tests/serving/test_attacks_openapi.py

reliability: $(INSTALLED) ## break a running server, at full length, and print what was measured
	PDEINFER_RELIABILITY=full $(BIN)/python -m pytest -s tests/reliability

venv: $(INSTALLED) ## make or renew the environment

# The stamp is made last: an installation that was interrupted is done again. pip compiles no modules: Python does as it
# imports them, and imports a part.
$(INSTALLED): pyproject.toml pdeinfer/version.py requirements/constraints.txt \
		$(wildcard hatch_build.py pdeinfer/kernels/*.cc pdeinfer/kernels/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pdeinfer needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV) (a minute or two, once)"
	@rm -f $@
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile \
		--constraint requirements/constraints.txt --editable '.[cpu,serve,train,dev]'
	@test -e pdeinfer/kernels/libpdeinfer.so || echo "Without the fused kernel, for which '$(BIN)/python -m pip install" \
		"--verbose --no-deps --editable .' names the reason: everything works, PDE layers more slowly"
	@touch $@
