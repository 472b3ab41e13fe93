PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test lint benchmark clean

run: $(READY)  ## the main job: measure the headline scenario and print its table
	$(BIN)/parbench run scenarios/lstm_scaling.yaml

test: lint  ## lint, types and the whole test suite
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(READY)  ## fidelity, cost and scaling, against plain torch scripts
	$(BIN)/pytest tests/benchmarks --benchmark-only -s

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
