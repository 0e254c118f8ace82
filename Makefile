# Two commands do everything on an empty machine: `make demo` and `make test`.
# Each makes the environment it needs; a second run installs nothing.

PYTHON ?= python3
PIP_FLAGS ?= --disable-pip-version-check -q

BIN := .venv/bin
CORE := .venv/.core-installed
DEV := .venv/.dev-installed

.PHONY: demo test docs lint slow figures clean notebook

demo: $(CORE)
	$(BIN)/einthoven demo

test: $(DEV)
	$(BIN)/python -m pytest -n auto

notebook: $(DEV)
	$(BIN)/python tools/build_notebook.py

# Warnings are errors: a link that leads nowhere, a page in no table of contents.
docs: $(DEV)
	$(BIN)/python -m sphinx -E -W --keep-going -n -q -b html docs build/docs

slow: $(DEV)
	$(BIN)/python -m pytest -m slow

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(CORE): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
