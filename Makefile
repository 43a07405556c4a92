# Two commands do everything on a machine that has Python >= 3.10 and make:
#   make book   set up, run every chapter, render the site into _build/html: an edition for each framework
#   make test   set up, run every chapter, run all tests
# Chapters that are up to date are not run again, whichever of the two ran them.
# FRAMEWORK=pytorch (or tensorflow): that one alone. JOBS=4: so many processes side by side.
PYTHON ?= python3
EXTRAS ?= pytorch,tensorflow,book,test
JOBS ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

.PHONY: setup check chapters record book downloads test quick nightly bench notebooks clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --editable ".[$(EXTRAS)]"
	touch $@

check: setup  ## what needs no run: style, types
	$(BIN)/ruff check .
	$(BIN)/mypy

chapters: setup  ## run the chapters that are not up to date
	$(BIN)/python book/_tools/make_notebooks.py --check
	$(BIN)/python book/_tools/execute_chapters.py --jobs $(JOBS) $(addprefix --framework ,$(FRAMEWORK))

record: chapters  ## the numbers that the notebooks show are those of the last run
	$(BIN)/python book/_tools/execute_chapters.py --record --framework pytorch
	$(BIN)/python book/_tools/make_notebooks.py

book: chapters
	$(BIN)/python book/_tools/build_site.py $(addprefix --framework ,$(FRAMEWORK))
	$(BIN)/python book/_tools/check_links.py _build/html

downloads: book  ## in addition a PDF and an EPUB an edition, a zip that opens from a disk, llms.txt: minutes
	$(BIN)/python book/_tools/print_book.py $(addprefix --framework ,$(FRAMEWORK))
	$(BIN)/python book/_tools/make_epub.py $(addprefix --framework ,$(FRAMEWORK))
	$(BIN)/python book/_tools/take_away.py
	$(BIN)/python book/_tools/check_links.py _build/html

test: check chapters
	$(PYTEST)

quick: check  ## a first answer in a few minutes: no chapters, nothing slow, one framework of the two
	$(PYTEST) -m "not book and not slow and not nightly" --only $(or $(FRAMEWORK),pytorch)

nightly: setup  ## the long tests, one after the other
	$(BIN)/python -m pytest -m nightly

bench: setup  ## how fast zoobook is, beside the original Zoobot: about an hour
	$(BIN)/python tests/benchmarks/bench.py

notebooks: setup  ## the output-free notebooks that Colab opens, from their Markdown sources
	$(BIN)/python book/_tools/make_notebooks.py

clean:
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache
