# All that is needed is Python 3.11 or newer; everything else goes into a virtual environment here.
# Variables: PYTHON (the interpreter to begin with), VENV (default .venv), ARGS (passed on to the
# command: `make test ARGS="-k tickets"`).

VENV ?= .venv
PYTHON ?=
ARGS ?=

CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# Branch coverage in percent, below which `check` fails.
COVERAGE_FLOOR := 90

.DEFAULT_GOAL := help
.PHONY: help demo test lint types check format docs fuzz bench soak clean
.DELETE_ON_ERROR:

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## A small mesh with a gateway in front, and what to try on it.
	@$(BIN)/scamp-gateway demo $(ARGS)

test: $(VENV)/.installed-dev ## Every test. Those that need a server that is not here are skipped.
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev ## Style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Types.
	$(BIN)/mypy

check: lint types ## Everything that has to pass: style, format, types, tests with coverage.
	$(BIN)/python -m pytest --cov --cov-report= --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

format: $(VENV)/.installed-dev ## Bring the code into its form.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## The pages of docs/ as a site, in build/site. Any warning ends it.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "build/site/index.html"

fuzz: $(VENV)/.installed-fuzz ## Ten minutes for each parser of foreign bytes: make fuzz ARGS="header ticket --minutes 1".
	@$(BIN)/python tests/fuzz/run.py $(ARGS)

bench: $(VENV)/.installed-dev ## What it costs, beside bare aiohttp and nginx: make bench ARGS="small --pairs 9". See benchmarks/.
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.installed-dev ## Faults and load for long: make soak ARGS="faults --minutes 60". See tests/soak/.
	@$(BIN)/python tests/soak/run.py $(ARGS)

clean: ## Remove what the above made, the virtual environment too.
	@! test -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	rm -rf build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are older than pyproject.toml when the dependencies may have changed.

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing scamp-gateway into $(VENV)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing scamp-gateway and what its tests need into $(VENV)"
	@$(PIP) install --quiet --editable '.[dev]'
	@$(PIP) install --quiet --editable '.[browser]' || echo "going on without tests in a browser" >&2
	@touch $(VENV)/.installed $@

# Where there is no atheris for this Python, inputs are changed at random instead.
$(VENV)/.installed-fuzz: pyproject.toml | $(VENV)/.installed-dev
	@$(PIP) install --quiet --editable '.[fuzz]' || echo "going on without atheris" >&2
	@touch $@

$(BIN)/python:
	@for one in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
	  if "$$one" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$one" --version)"; \
	    rm -f $(BIN)/python* $(VENV)/.installed*; "$$one" -m venv $(VENV); exit; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with its venv module among: $(or $(PYTHON),$(CANDIDATES))." >&2; \
	echo "Debian, Ubuntu: apt install python3 python3-venv. Else: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1
