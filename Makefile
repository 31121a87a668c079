# Everything runs in .venv, which the first target that needs it makes. After that no network is needed.
PYTHON ?= python3
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell [ $(CORES) -gt 4 ] && echo 4 || echo $(CORES))
BIN := .venv/bin
QUIET := MPLBACKEND=Agg OMP_NUM_THREADS=$(shell expr $(CORES) / $(WORKERS))
SUMS := find nbs kdnb -name '.?*' -prune -o \( -name '*.ipynb' -o -name '*.py' \) -exec cksum {} + | sort -k 3

.DEFAULT_GOAL := help
.PHONY: help setup run bench gpu torture lab check test lint types sync quick notebooks slow fix export readme docs clean

help:     ## What there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

unexport PYTHONDONTWRITEBYTECODE         # what is imported is compiled once: pip, told so below, compiles nothing

setup: .venv/installed ## Make .venv with kdnb and its tools, and tell this clone's git how to merge notebooks.

.venv/installed: settings.ini setup.py
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --no-compile -e '.[dev]'
	@if [ -e .git ]; then git config merge.nbdev-merge.name 'conflicts become notebook cells'; \
	    git config merge.nbdev-merge.driver '$(BIN)/nbdev_merge %O %A %B %P'; fi
	@touch $@

run: setup ## The demonstration: teacher, student alone, student taught on digits; table and pictures under runs/.
	MPLBACKEND=Agg $(BIN)/python -c 'import sys; from kdnb.cli import kdnb_demo; sys.exit(kdnb_demo())'

bench: setup ## kdnb beside the plain way: speed, levers, students together, memory, start, profile, each method; under 20 minutes; ARGS='--help' tells the options.
	$(BIN)/python -m bench $(ARGS)

gpu: setup ## What only a GPU can show: its tests, bench, two pairs of the 240-epoch protocol; goes on where it stopped; ARGS='--help'.
	$(BIN)/python -m bench.gpu $(ARGS)

torture: setup ## Kills, bit flips, damaged files, wrong calls: what was tried and survived goes to torture/table.md; an hour, goes on where it stopped; ARGS='--help'.
	$(BIN)/python -m torture $(ARGS)

lab: setup ## JupyterLab on this checkout, opened on nbs/index.ipynb; its options: ARGS='--no-browser --port=8890'.
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" $(ARGS) nbs/index.ipynb

check test quick notebooks slow: export KDNB_RUNS = $(CURDIR)/.runs-of-tests
check: lint types sync quick ## What to try before each commit: ruff, pyright, notebooks and code agree, the quick tests; under 3 minutes on 2 cores.

test: check notebooks slow ## All checks: `make check`, every notebook, and the tests that start processes; under 20 minutes on 2 cores.

lint: setup ## ruff, see ruff.toml: lines, imports, names, common mistakes.
	$(BIN)/ruff check $(wildcard kdnb tests bench docs torture)
	$(BIN)/ruff check --select I nbs

types: setup ## pyright, see pyrightconfig.json: the package, and what people type (tests/user_script.py).
	$(BIN)/pyright

quick: setup ## The tests that are not marked slow.
	@rm -rf $(KDNB_RUNS)
	$(QUIET) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m 'not slow' tests

notebooks: setup ## Every notebook, each in a process of its own; one: make notebooks ARGS=nbs/05_taps/00_graph.ipynb
	@rm -rf $(KDNB_RUNS)
	$(QUIET) $(BIN)/python tests/run_notebooks.py -n $(WORKERS) $(ARGS)

slow: setup ## The tests marked slow: what starts processes, ranks, commands, trains or compiles.
	@rm -rf $(KDNB_RUNS)
	$(QUIET) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m slow tests

fix: setup ## Let ruff mend what it can, in the notebooks and in scripts; then export.
	$(BIN)/ruff check --fix --select I,UP nbs
	$(BIN)/ruff check --fix $(wildcard tests bench docs)
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

sync: setup ## Clean and export the notebooks; fails if that changed anything.
	@$(SUMS) > .venv/before
	@$(BIN)/nbdev_clean && $(BIN)/nbdev_export && $(SUMS) > .venv/after
	@diff .venv/before .venv/after || { echo 'kdnb/ and nbs/ did not agree: they do now, look at the changes (git diff) and try again'; exit 1; }

export: setup ## Write kdnb/*.py from the notebooks.
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

readme: setup ## Write README.md from nbs/index.ipynb: its tables are made anew, other outputs are shown as they are.
	$(BIN)/python -m docs.pages
	rm -rf README_files
	$(BIN)/jupyter nbconvert --config docs/readme.py --output-dir . nbs/index.ipynb

docs: setup ## The site under _docs/html, from notebooks, docstrings and docs/*.md; nothing is executed or fetched; a warning is an error.
	MPLBACKEND=Agg $(BIN)/python -m docs.website

clean:    ## Remove what tests and builds leave; .venv and runs/ stay.
	rm -rf build dist _proc _docs .pytest_cache .ruff_cache .runs-of-tests .times.json
	find . -name .venv -prune -o -name runs -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print | xargs rm -rf
