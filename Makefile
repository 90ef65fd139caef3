# Everything from an empty machine: needs Python 3.11 or newer, git and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := uv==0.13.9
TORCH ?= auto

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Where it is set, each of the many processes of a run would compile this checkout anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint docs gpu audit clean
.DELETE_ON_ERROR:

## The digits grid, from scratch to figures and a report.
demo: $(READY)
	$(BIN)/equigrid demo

## Units, contracts, a small grid, a kill drill, two processes at a time: under 5 minutes on two quiet
## cores. ARGS="-m gpu" or ARGS=tests/grid chooses others.
test: $(READY)
	$(if $(ARGS),,$(BIN)/python -m pytest --quiet --exitfirst tests/grid/test_machine.py)
	$(PYTEST) $(ARGS)

## These and all others that need no GPU and no network: 20 minutes more on two quiet cores.
test-all: test
	$(PYTEST) -m "long and not slow and not gpu and not network" $(ARGS)

## The linter, the formatter, and the types of the package.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## The documentation as a site, in build/site; a warning is an error.
docs: $(READY) requirements-docs.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

## Correctness and speed on a CUDA device, within MINUTES; the same command goes on. DATA: a folder
## of CIFAR-10's Parquet files. benchmarks/README.md says more.
MINUTES ?= 15
OUT ?= gpu-figures
gpu: $(READY)
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/gpu.py --out $(OUT) --minutes $(MINUTES) $(if $(DATA),--data $(DATA)) $(ARGS)

## The pinned dependencies against the database of known vulnerabilities: needs a network.
audit: $(READY)
	$(BIN)/uv tool run pip-audit --requirement requirements.txt --no-deps --disable-pip

# PyTorch's CPU build on a machine without a GPU; TORCH=cpu or TORCH=cuda chooses.
# Compiled bytecode: without it every Ray worker would compile PyTorch anew at its start.
$(READY): requirements.txt pyproject.toml deploy/install.sh
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "equigrid needs Python 3.11 or newer, this is %s; try make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	EQUIGRID_TORCH=$(TORCH) deploy/install.sh $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
