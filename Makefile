# Every command builds the environment in .venv first, if it is missing or out of date.
#
#   make figures [STUDY=demo] [ARGS="--seed 3"]   run the notebooks on a study, or resume
#   make test [ARGS="-k splits"]                  run all tests and every notebook
#   make verify [STUDY=demo]                      run a study again elsewhere, compare every result
#   make notebooks                                put the demo's outputs into notebooks/ and README.md
#   make lab                                      open the notebooks in JupyterLab
#   make docs                                     build the site, from what is committed, in build/site
#   make check                                    lint, formatting and types
#   make coverage [ARGS="-k splits"]              lines of mpm that tests run, the least covered first
#   make clean                                    remove .venv, caches and test artefacts; no data

PYTHON ?= python3
STUDY ?= demo
ARGS ?=

BIN := .venv/bin/python
STAMP := .venv/.stamp
SCRATCH := $(CURDIR)/build/test

export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help figures test verify notebooks lab docs check coverage clean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

figures: $(STAMP)
	@$(BIN) -m mpm run $(STUDY) $(ARGS)

# One process runs the notebooks, in order and with their own parameters, each on the artefacts of
# those before it; the other the tests, file by file. Each trains on one thread: two that wait for each
# other are slower where both processors are busy. A part of them (ARGS) runs in one process and
# finds the artefacts of the last whole run.
test: $(STAMP)
	@$(if $(ARGS),,rm -rf "$(SCRATCH)";) mkdir -p "$(SCRATCH)"
	@status=0; \
	MPM_RUN=1 MPM_THREADS=1 MPM_PROCESSED="$(SCRATCH)/processed" MPM_FIGURES="$(SCRATCH)/figures" \
	$(BIN) -m pytest notebooks/0[1-9]_*.ipynb notebooks/00_*.ipynb tests \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout 1800 \
	    $(if $(ARGS),,-n 2 --dist loadscope --no-loadscope-reorder) \
	    --junitxml="$(SCRATCH)/report.xml" $(ARGS) || status=$$?; \
	echo "Test report in build/test/report.xml, artefacts and figures of the notebooks beside it"; \
	exit $$status

verify: $(STAMP)
	@$(BIN) -m mpm verify $(STUDY) $(ARGS)

notebooks: $(STAMP)
	@$(BIN) -m mpm run demo
	@$(BIN) -c 'from mpm import refresh, results; refresh.refresh("demo"); results.write("demo")'
	@echo "Outputs of the demo in notebooks, its figures in figures/demo, its scores in README.md"

lab: $(STAMP)
	@$(BIN) -m jupyterlab notebooks $(ARGS)

# Nothing is run or downloaded: notebooks keep their committed outputs. A warning is an error.
docs: $(STAMP)
	@rm -rf build/site build/doctrees
	@$(BIN) -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/site
	@echo "Site in build/site, its first page is build/site/index.html"

check: $(STAMP)
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .
	@$(BIN) -m mypy

# Without notebooks, which run in kernels of their own; other processes are counted, too.
coverage: $(STAMP)
	@$(BIN) -m coverage erase
	@status=0; \
	$(BIN) -m coverage run -m pytest tests -m "not slow" $(ARGS) || status=$$?; \
	$(BIN) -m coverage combine -q && $(BIN) -m coverage report --sort=cover || status=1; \
	exit $$status

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis .benchmarks mpm.egg-info
	find mpm tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

# The stamp comes last, so that an interrupted set-up is taken up again by the next command.
$(STAMP): requirements.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "$(PYTHON) is not installed; install Python 3.11 to 3.13, or name one: make PYTHON=python3.12 ..." >&2; \
	    exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "$(PYTHON) is $$("$(PYTHON)" -V 2>&1); mpm needs Python 3.11 to 3.13: make PYTHON=python3.12 ..." >&2; \
	    exit 1; }
	@echo "Setting up .venv with $$("$(PYTHON)" -V): several minutes and several GB the first time"
	@[ "$$($(BIN) -V 2>&1)" = "$$("$(PYTHON)" -V)" ] && $(BIN) -m pip --version >/dev/null 2>&1 || \
	    "$(PYTHON)" -m venv --clear .venv || { \
	    echo "$(PYTHON) cannot make virtual environments; install its venv and pip (Debian, Ubuntu: python3-venv)" >&2; \
	    exit 1; }
	$(BIN) -m pip install --no-input -r requirements.lock
	$(BIN) -m pip install --no-input --no-build-isolation --no-deps -e .
	@touch $@
