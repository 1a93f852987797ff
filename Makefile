# make demo    install, train and evaluate the embedded digits: about three minutes on two cores
# make test    install, lint, type-check, and the tests that hold every promise once: six to fourteen minutes
# make test-all    all tests, exhaustive ones too: what CI runs
# make test-avx2   all tests, limited to the instructions of an AVX2 processor as far as this one can stand in for it
# make bench   measure beside PyTorch, Keras, onnxruntime and LiteRT, and write docs/performance.md: half an hour
# make bench-kernels  measure oneDNN off and on, and the choices of support/processor.py: a quarter of an hour
# make bench-check    fail where a ratio to them is 15 % lower than benchmarks/recorded.json has it: ten minutes
# make bench-input    measure the input pipeline beside DALI, PyTorch and TFDS: docs/performance.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
DEMO_DIR := build/demo
PEERS := build/peers
IMAGENET_MINI ?= ../shared/data/imagenet_mini
CIFAR10 ?= ../shared/data/cifar10
IMAGENET_RAW ?= ../shared/data/imagenet_raw_mini

.PHONY: demo test test-all test-avx2 lint bench bench-kernels bench-check bench-input clean

demo: $(VENV)/.installed
	@rm -rf $(DEMO_DIR); start=$$(date +%s); \
	$(BIN)/python train_image_classifier.py --flagfile=configs/alexnet_v2_digits.cfg --train_dir=$(DEMO_DIR) \
	    --log_every_n_steps=15 --eval_every_epochs=3 && \
	$(BIN)/python eval_image_classifier.py --checkpoint_path=$(DEMO_DIR) --results_path=$(DEMO_DIR)/results.json && \
	echo "trained and evaluated in $$(($$(date +%s) - start)) seconds; see the run with:" && \
	echo "    $(BIN)/tensorboard --logdir $(DEMO_DIR)"

# A worker more than cores, three at most, as tests wait for processes and disks. Each takes whole files, so that what
# their tests share is made once; and 1.5 GB, and as much again for a net that it trains in another process.
PYTEST := $(BIN)/python -m pytest -n $$(( $$(nproc) < 2 ? 2 : 3 )) --dist=loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) -m 'not full'

test-all: lint
	$(PYTEST)

# TensorFlow takes its own bfloat16 kernels, not oneDNN's, by what the processor has and not by what it is kept to.
test-avx2: lint
	ONEDNN_MAX_CPU_ISA=AVX2 XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(PYTEST) -k 'not bfloat16 and not precision'
	TF_ENABLE_ONEDNN_OPTS=0 XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(PYTEST) -k 'bfloat16 or precision'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

BENCH := $(BIN)/python benchmarks/bench.py --imagenet_dir=$(IMAGENET_MINI) --cifar10_dir=$(CIFAR10) \
	--peers=$(PEERS)/bin/python

bench: $(VENV)/.installed-dev $(PEERS)/.installed
	$(BENCH) --results_path=build/bench/results.json --write_docs $(BENCH_FLAGS)

bench-kernels: $(VENV)/.installed-dev $(PEERS)/.installed
	$(BENCH) --only=kernels --rounds=2 --results_path=build/bench/kernels.json --write_docs $(BENCH_FLAGS)

# Peers are not installed on the way, which takes 2 GB: it says how.
bench-check: $(VENV)/.installed-dev
	$(BENCH) --check=benchmarks/recorded.json --only=step,evaluation,prediction --rounds=3 $(BENCH_FLAGS)

bench-input: $(VENV)/.installed-dev $(PEERS)/.installed
	$(BENCH) --only=input --raw_dir=$(IMAGENET_RAW) --rounds=9 --results_path=build/bench/input.json $(BENCH_FLAGS)

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
	@$(PIP) install --constraint constraints.txt --editable '.[dev,export]'
	@touch $@

# Peers are measured, never used: their environment is their own, and is none of the project's dependencies.
$(PEERS)/.installed: benchmarks/peers.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install --requirement benchmarks/peers.txt
	@touch $@
