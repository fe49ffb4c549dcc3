# Everything runs in .venv, which `make setup` makes.
PYTHON ?= python3
PORT ?= 8888
# threads that wait sleep: spinning, they cost a third of the speed of training where a browser needs the other core
export OMP_WAIT_POLICY ?= PASSIVE
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 600 \
	--nbval-sanitize-with tests/nbval.cfg
WORKERS ?= 2
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses $(WORKERS) --dist loadscope

.PHONY: help setup lab doctor lint test test-all notebooks checkpoint hashes

help:  ## these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

setup:  ## make .venv, or mend it; quick when it is current
	@$(PYTHON) tools/setup.py

lab: setup  ## open the first notebook in JupyterLab; PORT=8888 and BROWSER=none are respected
	@$(BIN)/python tools/lab.py --port $(PORT)

doctor: setup  ## is this machine fit for a workshop?
	@$(BIN)/python -m imecd_lite doctor

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

test: lint  ## lint, unit tests, notebooks and a browser: about 20 minutes on two cores; WORKERS=2 is respected
	@$(PARALLEL) -m "not slow and not alone"
	@$(PYTEST) -m "not slow and alone"

test-all: lint  ## test and all that is slow: at most 60 minutes
	@$(PARALLEL) -m "not alone"
	@$(PYTEST) -m alone

notebooks: setup  ## run every notebook anew and store its outputs
	@$(BIN)/python tools/execute_notebooks.py

checkpoint: setup  ## train the bundled checkpoints anew
	@rm -rf data/checkpoints
	@$(BIN)/python -m imecd_lite train --data data/shop --output data/checkpoints/shop --checkpoint-dtype float16
	@$(BIN)/python -m imecd_lite train --data data/shop --output data/checkpoints/shop-literal --checkpoint-dtype float16 \
		--preset literal --batch-size 256
	@rm data/checkpoints/*/training_state.safetensors
	@$(MAKE) --no-print-directory hashes

hashes: setup  ## note the bundled data's hashes, which the doctor checks
	@$(BIN)/python tools/hash_data.py
