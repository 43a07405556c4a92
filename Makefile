# Two commands do everything on a machine that has Python >= 3.10 and make:
#   make book   set up, run every chapter, render the site into _build/html: an edition for each framework
#               (FRAMEWORK=pytorch or FRAMEWORK=tensorflow: one alone)
#   make test   set up, run all tests
PYTHON ?= python3
EXTRAS ?= pytorch,tensorflow,book,test
BIN := .venv/bin

.PHONY: setup book test quick nightly bench notebooks clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --editable ".[$(EXTRAS)]"
	touch $@

book: setup
	$(BIN)/python book/_tools/make_notebooks.py --check
	$(BIN)/python book/_tools/execute_chapters.py $(addprefix --framework ,$(FRAMEWORK))
	$(BIN)/python book/_tools/build_site.py $(addprefix --framework ,$(FRAMEWORK))
	$(BIN)/python book/_tools/check_links.py _build/html

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

quick: setup  ## everything but the chapters
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not book and not nightly"

nightly: setup  ## the long tests
	$(BIN)/python -m pytest -m nightly

bench: setup  ## how fast zoobook is, beside the original Zoobot: about an hour
	$(BIN)/python tests/benchmarks/bench.py

notebooks: setup  ## the output-free notebooks that Colab opens, from their Markdown sources
	$(BIN)/python book/_tools/make_notebooks.py

clean:
	rm -rf _build .pytest_cache .ruff_cache
