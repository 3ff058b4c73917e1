# The commands of the README. `make help` lists them.

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest
OLDEST_PYTHON ?= python3.10
FOLDERS := attacks callbacks datamodules lightning_modules nets

# The first Python from 3.10 that can make an environment; `make train PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)

.PHONY: help train tensorboard pictures test test-all test-oldest lint types links clean
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-20s %s\n", $$1, $$2 }'

train: $(INSTALLED) ## set up .venv, then train and attack a small network: the main job
	$(RUN) train.py

tensorboard: $(INSTALLED) ## show the runs in logs/ in the browser
	$(RUN) -m tensorboard.main --logdir logs

pictures: $(INSTALLED) ## make pictures of what a network sees, on one page: figures/index.html
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[imagenet]'
	$(RUN) train.py gallery

test: $(INSTALLED) ## run the fast tests
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: $(INSTALLED) ## run every test; those marked gpu need a CUDA device
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-oldest: $(OLDEST)/.installed ## run the fast tests with the lowest versions allowed, on Python 3.10
	$(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

lint: $(INSTALLED) ## check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(INSTALLED) links ## check types
	cd .types && ../$(RUN) -m mypy --config-file ../pyproject.toml touchstone train.py

# Type checkers and editors do not follow `touchstone.__path__`; they find .types/touchstone/attacks -> ../../attacks.
links:
	@rm -rf .types/touchstone .types/train.py && mkdir -p .types/touchstone
	@cd .types && ln -s ../train.py .
	@cd .types/touchstone && ln -s ../../touchstone/* . && for f in $(FOLDERS); do ln -s ../../$$f $$f; done

clean: ## remove .venv, .venv-oldest and all caches, never logs/
	rm -rf $(VENV) $(OLDEST) .types .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The mark is taken away first and set last, so that an interrupted install is taken up again.
$(INSTALLED): pyproject.toml setup.py requirements.txt constraints.txt
	@rm -f $@
	@$(RUN) -m pip --version >/dev/null 2>&1 || { test -n "$(PYTHON)" || { \
		echo "Python 3.10 or newer with its venv module is needed, and was not found: install it" >&2; \
		echo "(Debian, Ubuntu: apt install python3-venv) or name it: make train PYTHON=/path/to/python3" >&2; exit 1; }; \
		echo "Setting up $(VENV) with $(PYTHON): up to 3 GB to download, once."; $(PYTHON) -m venv --clear $(VENV); }
	$(RUN) -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(OLDEST)/.installed: pyproject.toml setup.py requirements.txt constraints-oldest.txt
	@rm -f $@
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --constraint constraints-oldest.txt --editable '.[dev,imagenet,heic,text]'
	@touch $@
