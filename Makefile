# make demo    install, train and evaluate the embedded digits: about three minutes on two cores
# make test    install, lint, type-check and test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
DEMO_DIR := build/demo

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	@rm -rf $(DEMO_DIR); start=$$(date +%s); \
	$(BIN)/python train_image_classifier.py --flagfile=configs/alexnet_v2_digits.cfg --train_dir=$(DEMO_DIR) && \
	$(BIN)/python eval_image_classifier.py --checkpoint_path=$(DEMO_DIR) --results_path=$(DEMO_DIR)/results.json && \
	echo "trained and evaluated in $$(($$(date +%s) - start)) seconds; see the run with:" && \
	echo "    $(BIN)/tensorboard --logdir $(DEMO_DIR)"

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info

# Stamps: what is asked for is installed again only when it has changed. Nothing of the project itself is installed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'error: Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ...'; exit 1; }
	@echo 'installing the pinned dependencies into $(VENV): a minute or two'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
