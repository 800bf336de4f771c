# neurokd in a few words: `make help`. Every target sets up what it needs, the first time only.
#
#   make test PYTHON=python3.12     another interpreter for a new .venv
#   make demo OUT=results/tuesday   another folder for the results
#   make demo NEUROKD_PROFILE=ci    the same story with fewer training steps

PYTHON ?= python3
OUT ?= runs/demo
NEUROKD_PROFILE ?= full

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lab book serve browser lint format notebooks clean

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## simulate, train, segment, trace: pictures, SWC files and a report in runs/demo
	NEUROKD_PROFILE=$(NEUROKD_PROFILE) NEUROKD_OUT='$(OUT)' \
		$(BIN)/python tools/run_notebook.py notebooks/00_quickstart.ipynb '$(OUT)/quickstart.html'

test: $(READY)  ## run the whole test suite, notebooks included
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest --nbmake notebooks/

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab notebooks

book: $(READY)  ## build the book in book/_build/html, running the notebooks that changed (short profile)
	$(BIN)/python tools/book.py

serve: book  ## build the book and show it at http://127.0.0.1:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory book/_build/html

browser: $(READY) $(VENV)/.browser  ## look for faults on every page of the built book, and run notebooks in JupyterLab
	$(BIN)/python -m pytest tests/browser

lint: $(READY)  ## check style, format, types, dialect and that each notebook equals its .py
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy neurokd
	$(BIN)/python tools/dialect.py
	$(BIN)/python tools/notebooks.py --check

format: $(READY)  ## mend style and format where ruff can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

notebooks: $(READY)  ## write every notebook from its .py
	$(BIN)/python tools/notebooks.py

clean:  ## remove .venv and caches; results in runs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find neurokd tests tools notebooks -name __pycache__ -prune -exec rm -rf {} +

# The stamp makes an installed environment cost nothing until pyproject.toml changes.
$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "neurokd needs Python 3.10 or newer, and there is no '$(PYTHON)' here."; \
		echo "Debian/Ubuntu: sudo apt-get install python3 python3-venv; or name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "neurokd needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another interpreter: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments here."; \
		echo "Debian/Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

$(VENV)/.browser: $(READY)
	$(BIN)/python -m pip install -e '.[browser]'
	@touch $@
