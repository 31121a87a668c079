# Everything runs in .venv, which the first target that needs it makes. After that no network is needed.
PYTHON ?= python3
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell [ $(CORES) -gt 4 ] && echo 4 || echo $(CORES))
BIN := .venv/bin
QUIET := MPLBACKEND=Agg OMP_NUM_THREADS=$(shell expr $(CORES) / $(WORKERS))
SUMS := find nbs kdnb -name '.?*' -prune -o \( -name '*.ipynb' -o -name '*.py' \) -exec cksum {} + | sort -k 3

.DEFAULT_GOAL := help
.PHONY: help setup run bench lab test sync export readme clean

help:     ## What there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/installed ## Make .venv with kdnb and its tools, and tell this clone's git how to merge notebooks.

.venv/installed: settings.ini setup.py
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	@if [ -e .git ]; then git config merge.nbdev-merge.name 'conflicts become notebook cells'; \
	    git config merge.nbdev-merge.driver '$(BIN)/nbdev_merge %O %A %B %P'; fi
	@touch $@

run: setup ## The demonstration: teacher, student alone, student taught on digits; table and pictures under runs/.
	MPLBACKEND=Agg $(BIN)/python -c 'import sys; from kdnb.demo import kdnb_demo; sys.exit(kdnb_demo())'

bench: setup ## kdnb beside the plain way: speed, levers, students together, memory, start, profile, each method; under 20 minutes; ARGS='--help' tells the options.
	$(BIN)/python -c 'import sys; from kdnb.benchmark import kdnb_bench; sys.exit(kdnb_bench())' $(ARGS)

lab: setup ## JupyterLab, opened on the tutorials.
	$(BIN)/jupyter lab nbs/tutorials

test: export KDNB_RUNS = $(CURDIR)/.venv/test-runs
test: sync ## All checks: notebooks and code agree, every notebook runs, and what no notebook can show (tests/).
	@rm -rf .venv/test-runs
	$(QUIET) $(BIN)/nbdev_test --timing --n_workers $(WORKERS)
	$(QUIET) $(BIN)/python -m pytest -q -n $(WORKERS) tests

sync: setup ## Clean and export the notebooks; fails if that changed anything.
	@$(SUMS) > .venv/before
	@$(BIN)/nbdev_clean && $(BIN)/nbdev_export && $(SUMS) > .venv/after
	@diff .venv/before .venv/after || { echo 'kdnb/ and nbs/ did not agree: they do now, look at the changes (git diff) and try again'; exit 1; }

export: setup ## Write kdnb/*.py from the notebooks.
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

readme: setup ## Write README.md and its figures from nbs/index.ipynb, whose outputs are shown as they are.
	rm -rf README_files
	$(BIN)/jupyter nbconvert --config nbs/_readme.py --output-dir . nbs/index.ipynb

clean:    ## Remove what tests and builds leave; .venv and runs/ stay.
	rm -rf build dist _proc _docs .pytest_cache
	find . -name .venv -prune -o -name runs -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print | xargs rm -rf
