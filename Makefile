# Two commands do everything on an empty machine: `make demo` and `make test`.
# Each makes the environment it needs; a second run installs nothing.

PYTHON ?= python3
PIP_FLAGS ?= --disable-pip-version-check -q

BIN := .venv/bin
CORE := .venv/.core-installed
DEV := .venv/.dev-installed

.PHONY: demo test lint slow figures clean

demo: $(CORE)
	$(BIN)/einthoven demo

test: $(DEV)
	$(BIN)/python -m pytest -n auto

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
