# make demo   sets everything up, runs the pipeline, prints the table and the registered version
# make test   the tests (at most 10 minutes on 2 cores);  make gpu-check   the encoders on this machine's GPUs
# VENV=/path  uses another environment;  PYTHON=/path/to/python3.11 makes it;  LOCK=requirements-cpu.lock without CUDA

VENV ?= .venv
PYTHON ?= python3
LOCK ?= requirements.lock
TEST_JOBS ?= 2
PYTEST_ARGS ?=

PY := $(abspath $(VENV))/bin/python
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHON

# Nobody is told what is run here.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
# DVC's default site cache is a folder that everyone may write to.
export DVC_SITE_CACHE_DIR := $(CURDIR)/.fusionrec/dvc-site

.PHONY: help environment demo repro up test test-faults test-browser test-nightly test-docs gpu-check lint bench clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,3s/^# //p' Makefile

environment:
	@sh .ci/preflight $(VENV)
	@$(PYTHON) .ci/environment $(VENV) $(LOCK)

demo: environment
	@umask 077; test -d data/raw/atelier || $(PY) -m fusionrec demo-data
	@$(MAKE) --no-print-directory repro

# dvc repro under the project's lock, then register (which does nothing twice)
repro: environment
	@umask 077; $(PY) -m fusionrec repro
	@$(PY) -m fusionrec table
	@$(PY) .ci/times

ifneq ($(wildcard flows/up.py),)
up: environment
	@umask 077; $(PY) -m flows.up
endif

# Two processes whose OpenMP threads wait by spinning on two cores keep each other from working, for minutes.
test: environment
	@OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder -m "not faults and not browser and not nightly" $(PYTEST_ARGS)

test-faults: environment
	@$(PY) -m pytest -m faults --timeout 600 $(PYTEST_ARGS)

test-browser: environment
	@$(PY) -m pytest -m browser -s --timeout 1800 $(PYTEST_ARGS)

test-nightly: environment
	@NIGHTLY=1 $(PY) -m pytest -m nightly --timeout 3600 $(PYTEST_ARGS)

test-docs: environment
	@HEAVY=1 $(PY) -m pytest tests/docs --timeout 3600 $(PYTEST_ARGS)

# The encoders on the GPUs of this machine; fails where there is none.
gpu-check: environment
	@$(PY) .ci/gpu-check $(PYTEST_ARGS)

lint: environment
	@$(PY) -m ruff check .
	@$(PY) -m mypy

BENCH ?= demo drift embedding encoders encoders_trained evaluation generated house ranking recipes recommenders search \
  seeds splits strengths text_encoder training
bench: environment
	@umask 077; for name in $(BENCH); do echo "$$name" && $(PY) "benchmarks/$$name.py" || exit 1; done
	@$(PY) benchmarks/results_doc.py

# Caches only: data/, models and .fusionrec/ (keys, databases) stay. `git clean` is the tool for more.
clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build fusionrec.egg-info
	find src flows tests -name __pycache__ -type d -prune -exec rm -rf {} +
