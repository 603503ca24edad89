# Everything one does with a checkout. GNU make, Python >= 3.11 with venv; the rest is fetched into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Without an NVIDIA GPU torch is pinned, so that pip takes a build that brings no CUDA.
CONSTRAINTS := $(shell nvidia-smi -L >/dev/null 2>&1 || echo -c constraints/cpu.txt)

# A stamp is newer than what it was made from, or the step behind it runs again.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
MADE_FROM := pyproject.toml $(wildcard constraints/*.txt)

# The current folder stays off sys.path: kernels/, evals/ and lsp/ there would shadow packages of those names.
export PYTHONSAFEPATH := 1

EXAMPLE ?= examples/access_log.py
EVALS ?= ../shared/evals
RUNS ?= runs
MEASURE = $(BIN)/diffcode eval --markdown

.PHONY: help demo test check fuzz gpu tree table vsix vscode page clean

help:  ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS=$$'\t' read -r name text; do printf 'make %-7s %s\n' "$$name" "$$text"; done

demo: $(INSTALLED)  ## Install, fetch the model once (491 MB), and fill a hole
	$(BIN)/diffcode pull
	$(BIN)/diffcode fill $(EXAMPLE) --diff

# The weights are pulled beforehand, with a progress bar; the tests themselves never ask a model hub.
test: $(INSTALLED_DEV)  ## Run every test
	HF_HUB_OFFLINE=1 $(BIN)/diffcode pull
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: $(INSTALLED_DEV) tree  ## Lint, check the format, the types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd .tree && ../$(BIN)/lint-imports --config ../pyproject.toml

# What static tools need to see diffcode/ and the folders installed below it as one package.
tree:
	@rm -rf .tree && mkdir -p .tree/diffcode
	@for entry in diffcode/*; do ln -s "../../$$entry" .tree/diffcode/; done
	@for folder in kernels evals lsp training; do \
	  if [ -e "$$folder/__init__.py" ]; then ln -s "../../$$folder" .tree/diffcode/; fi; \
	done

fuzz: $(INSTALLED_DEV)  ## Send the language server 200,000 frames and 120,000 editing sessions (8 minutes)
	DIFFCODE_FUZZ=1 $(BIN)/python -m pytest tests/lsp/test_fuzz.py tests/lsp/test_fuzz_abilities.py tests/lsp/test_text.py

table: $(INSTALLED_DEV)  ## Measure the README's tables (EVALS=folder of the official files); keep the machine idle meanwhile
	$(BIN)/diffcode pull
	$(MEASURE) --task infill-single --limit 256 --decoders leftmost,verified,verified:ngrams=0,verified:retries=8:best_of=9,threshold \
	  --out $(RUNS)/table/single
	$(MEASURE) --task infill-single --limit 256 --out $(RUNS)/table/single-wide \
	  --decoders leftmost,verified:ngrams=0:span_rows=4:max_anchors=5:threshold=0.15
	$(MEASURE) --task infill-single --limit 256 --newline-stop --decoders leftmost,verified,verified:retries=8:best_of=9 \
	  --out $(RUNS)/table/single-newline
	$(MEASURE) --task infill-random-light --data $(EVALS)/HumanEval-RandomSpanInfillingLight.jsonl.gz \
	  --decoders leftmost,verified,verified:ngrams=0,verified:retries=8,verified:retries=8:best_of=9 --out $(RUNS)/table/random-light
	$(MEASURE) --task infill-multi --limit 256 --decoders leftmost,verified,verified:retries=8:best_of=9 --out $(RUNS)/table/multi
	$(MEASURE) --task humaneval --decoders leftmost --out $(RUNS)/table/humaneval
	$(MEASURE) --task humaneval --decoders leftmost --adapter none --infill none --out $(RUNS)/table/humaneval-base

vsix:  ## Package the VS Code extension (Node 20 and npm)
	cd editors/vscode && npm ci && npm run package

vscode: $(INSTALLED_DEV)  ## Try the extension in VS Code itself (Node 20, npm, Chromium; fetches 190 MB once)
	DIFFCODE_VSCODE=1 $(BIN)/python -m pytest tests/lsp/test_vscode_itself.py

page:  ## Make the page of diffcode lsp --web anew (Node 20 and npm)
	cd editors/web && npm ci && npm run check && npm test && npm run build

gpu: $(INSTALLED_DEV)  ## Measure the fused kernels on this GPU in 9 minutes, and keep the rows in benchmarks/gpu.jsonl
	$(BIN)/python -m diffcode.evals.gpu --out benchmarks/gpu.jsonl

clean:  ## Remove the environment and all that was built, but not the model
	rm -rf editors/*/node_modules editors/vscode/out editors/vscode/*.vsix
	rm -rf $(VENV) .tree build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find diffcode kernels evals lsp training tests -name __pycache__ -prune -exec rm -rf {} +

# pip is the last thing that venv makes: without it the environment is only half there.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("diffcode needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(MADE_FROM) | $(BIN)/pip
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --editable . $(CONSTRAINTS)
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --group dev $(CONSTRAINTS)
	@touch $@
