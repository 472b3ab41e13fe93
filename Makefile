PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

EXAMPLE_RUNS ?= results/stored/lstm_scaling-cpu-2-cores results/stored/transformer_scaling-cpu-2-cores

NETWORK_RUNS ?= $(foreach rate,10gbit 1gbit 200mbit 50mbit,results/stored/slow_network-$(rate)-2-hosts)

.PHONY: run test lint docs benchmark proof stored tables example network gpu calibrate accuracy clean

run: $(READY)  ## the main job: measure the headline scenario, print its table and render its report
	@# 3: a cell failed. The report shows it.
	status=0; $(BIN)/parbench run scenarios/lstm_scaling.yaml || status=$$?; \
	case $$status in 0|3) $(BIN)/parbench report;; esac; exit $$status

test: lint  ## lint, types and the whole test suite
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## build the pages of docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

benchmark: $(READY)  ## fidelity, cost and scaling, against plain torch scripts
	$(BIN)/pytest tests/benchmarks --benchmark-only -s

gpu: $(READY)  ## prove parbench on this machine's GPU, in nine minutes
	$(BIN)/python -m tests.gpu.acceptance

stored: $(READY)  ## measure all stored runs again: two hours, on two quiet cores; then what is made from them
	$(BIN)/python -m tests.docs.stored
	$(BIN)/python -m tests.launch.slow_network
	$(MAKE) tables example network

tables: $(READY)  ## write the tables of the README and the pages again, from the stored runs
	$(BIN)/python -m tests.docs.tables

example: $(READY)  ## render the example report again, from EXAMPLE_RUNS
	$(BIN)/parbench report $(EXAMPLE_RUNS) --out report/example --format html,png

network: $(READY)  ## render the report of the slow network again, from NETWORK_RUNS
	$(BIN)/parbench report $(NETWORK_RUNS) --out report/slow_network --format html,png

proof: $(READY)  ## can the regression check be trusted here? Half an hour of real launches, best on a quiet machine
	$(BIN)/python -m tests.benchmarks.gate
	$(BIN)/python -m tests.benchmarks.gate --arms

calibrate: $(READY)  ## fit the planner to the published rows again, and print its constants and how wrong it is
	$(BIN)/python -m tests.predict.calibrate

accuracy: $(READY)  ## print how wrong the planner is, from stored rows: the figures of docs/planner.md
	$(BIN)/python -m tests.predict.accuracy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
