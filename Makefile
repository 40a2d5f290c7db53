# The commands for people and for CI. `make` alone lists them.

PYTHON ?= python3
PACKAGES ?=
SECONDS ?= 300
NETWORKS ?=

VENV := .venv
LOWEST := .venv-lowest
# The tests that need neither TensorFlow nor the network.
LOWEST_TESTS := $(addprefix tests/,pde spec graph images package runtime datasets checks inspection offline) \
	$(addprefix tests/,predictor cli serving) tests/test_platforms.py tests/test_exported_members.py
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Where an environment sets this, every start of TensorFlow would compile its thousands of modules again: 12 s, not 5.
unexport PYTHONDONTWRITEBYTECODE

# Parallel by file, in the order of collection. At most four processes, because each may load TensorFlow.
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest check dist docs serve bench bench-all bench-serving fuzz reliability gpu-check venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Every target works in $(VENV) and creates it if it is missing (PYTHON=python3, 3.11 to 3.13)."

demo: $(INSTALLED) ## train, export, verify and serve a model and classify real images, in about two minutes
	@$(BIN)/python scripts/demo.py

test: $(INSTALLED) ## run the tests, in less than ten minutes on two cores
	$(PYTEST) $(PARALLEL) -m "not slow"

# The reliability tests measure time, so they run alone.
test-all: test ## run the slow tests as well: every preset, the installed wheel, the browser, fuzzing, reliability
	PDEINFER_FUZZ_SECONDS=30 $(PYTEST) $(PARALLEL) -m slow --ignore tests/reliability
	PDEINFER_RELIABILITY=full $(PYTEST) tests/reliability

# Old releases warn about newer ones, so warnings are no errors here.
test-lowest: $(INSTALLED) ## test prediction and serving with the oldest dependencies that pyproject.toml allows
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip compile --quiet --python $(LOWEST) --resolution lowest-direct --only-binary :all: \
		--extra cpu --extra serve --extra grpc --extra otel --output-file $(LOWEST)/requirements.txt pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(LOWEST) --requirements $(LOWEST)/requirements.txt \
		httpx2 hypothesis onnx pytest pytest-xdist scikit-learn 'tritonclient[http]' python-rapidjson packaging
	@$(BIN)/uv pip install --quiet --python $(LOWEST) --no-deps .
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not slow" -W default \
		--ignore tests/serving/test_attacks_openapi.py $(LOWEST_TESTS)

check: $(INSTALLED) ## lint, check formatting and types, build the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	@$(MAKE) --no-print-directory docs

dist: $(INSTALLED) ## build the sdist and the wheels in dist/ and check them
	@$(BIN)/python -m scripts.dist

docs: $(INSTALLED) ## build the documentation in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve: $(INSTALLED) ## serve the bundled models on http://127.0.0.1:8000
	$(BIN)/pdeinfer serve

bench: $(INSTALLED) ## benchmark the bundled models and PACKAGES="build/mnist-pde ...", in five minutes
	$(BIN)/python -m benchmarks.quick $(PACKAGES)
	$(BIN)/python -m benchmarks.speed --quick

bench-all: $(INSTALLED) ## install the runtimes to compare with, run every benchmark, write docs/performance.md
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check \
		--constraint requirements/constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.document

bench-serving: $(INSTALLED) ## install other servers, compare ours with them, write docs/serving-performance.md
	$(BIN)/python -m benchmarks.serving.document

fuzz: $(INSTALLED) ## fuzz the image decoder, the parser and the server for SECONDS=300 each
	PDEINFER_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s tests/fuzz tests/serving/test_attacks_openapi.py

reliability: $(INSTALLED) ## run the reliability tests at full length, write what they measure into docs/reliability.md
	PDEINFER_RELIABILITY=document $(BIN)/python -m pytest -s tests/reliability

gpu-check: ## check and measure everything on a GPU, with PYTHON's packages and, if given, NETWORKS=folder
	$(PYTHON) -m scripts.gpu_check $(if $(NETWORKS),--networks $(NETWORKS))

venv: $(INSTALLED) ## create or update the environment

# The stamp is written last, so an interrupted installation is repeated. pip compiles nothing: Python compiles the
# modules that it imports.
$(INSTALLED): pyproject.toml pdeinfer/version.py requirements/constraints.txt \
		$(wildcard hatch_build.py pdeinfer/kernels/*.cc pdeinfer/kernels/*.cu pdeinfer/kernels/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pdeinfer needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || \
		{ echo "TensorFlow has no version for the Python of $(PYTHON) yet: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@echo "Installing into $(VENV) (a minute or two, once)"
	@rm -f $@
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile \
		--constraint requirements/constraints.txt --editable '.[cpu,serve,grpc,train,dev,docs]'
	@test -e pdeinfer/kernels/libpdeinfer.so || echo "Without the fused kernel, for which '$(BIN)/python -m pip install" \
		"--verbose --no-deps --editable .' names the reason: everything works, PDE layers more slowly"
	@touch $@
