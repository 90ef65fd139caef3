# Everything from an empty machine: needs Python 3.11 or newer, git and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := uv==0.13.9

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

## The digits grid, from scratch to figures and a report.
demo: $(READY)
	$(BIN)/equigrid run digits

## The tests, two processes at a time; ARGS="-m slow" or ARGS=tests/grid chooses others.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .

# Compiled bytecode: without it every Ray worker would compile PyTorch anew at its start.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "equigrid needs Python 3.11 or newer, this is %s; try make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
