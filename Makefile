# Two commands do everything: `make demo` and `make test`. Each makes its own environment first.

PYTHON  ?=       # a Python >= 3.11 to build .venv from; found by itself when empty
TORCH   ?=       # what to install as torch instead of our choice
WORKERS ?= 2     # test processes

.DEFAULT_GOAL := help
.PHONY: help env test demo check format clean oracle outside

help:
	@echo "make demo    make a spoken corpus, train a recognizer on it and try it (about ten minutes)"
	@echo "make test    run the tests (a few minutes, no network)"
	@echo "make outside the tests of clusters and trackers, whose packages it installs (460 MB)"
	@echo "make check   lint, formatting and types"
	@echo "make format  lay the code out"
	@echo "make env     only the environment, in .venv (the others do it themselves)"
	@echo "make clean   remove .venv and caches"

env:
	@PYTHON="$(strip $(PYTHON))" TORCH="$(strip $(TORCH))" sh scripts/make_env.sh

# kenlm, which our n-grams are compared with, is built from source. Tried once an environment: where
# there is no compiler, the tests that ask it are skipped.
oracle: env
	@test -e .venv/.oracle || { echo "env: building kenlm for the tests (a minute)"; \
	.venv/bin/python -m pip install -qq --constraint .venv/constraints.txt --editable '.[oracle]' \
	>.venv/oracle.log 2>&1 || echo "env: it could not be built, see .venv/oracle.log; its tests are skipped"; \
	touch .venv/.oracle; }

# One thread a process: two cores are shared by the test processes.
test: env oracle
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(strip $(WORKERS))

# What `make test` skips without these packages: Ray, submitit and the trackers, each for real.
outside: env
	.venv/bin/python -m pip install -qq --constraint .venv/constraints.txt \
	--editable '.[ray,slurm,tensorboard,wandb,mlflow]'
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/test_places.py tests/test_places_refusing.py \
	tests/test_trackers.py

demo: env
	.venv/bin/spelldown demo

check: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: env
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
