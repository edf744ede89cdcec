# A fresh machine needs two commands: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test docs slow clean

demo: $(VENV)/installed
	$(BIN)/skimba demo

test: $(VENV)/installed docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

# Sphinx, because it reads docstrings and Markdown and checks the links between them.
docs: $(VENV)/installed
	$(BIN)/python -m sphinx -b html -q -W --keep-going docs build/docs

slow: $(VENV)/installed
	$(BIN)/python -m pytest -q -m slow

# A regular install, so that what is tested is the built wheel; again whenever a source file is newer.
SOURCES := $(shell find src csrc -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml README.md

$(VENV)/installed: $(SOURCES)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist
