# Everything a person does with this tree. `make` alone prints the list; only Python and make are needed.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run dev test lint fmt typecheck benchmark simulate chaos mutate test-packages lock clean

VENV := .venv
PY := $(VENV)/bin/python
# The stamps carry the folder's name: scripts and the editable install hold paths, so a moved tree is set up again.
HERE := $(shell pwd -P | cksum | cut -d' ' -f1)
RUN_STAMP := $(VENV)/.run-$(HERE)
DEV_STAMP := $(VENV)/.dev-$(HERE)
SUITABLE = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --no-deps
UV = uv==0.13.9
NGINX_MODULES := /usr/lib/nginx/modules
# What is asked for in seconds, or puts load on the machine: it has the machine for itself.
ALONE := tests/chaos tests/integration/test_start.py::test_a_second_start_is_ready_in_three_seconds

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(RUN_STAMP) ## Make .venv and install the pinned, hash-checked dependencies
	@true

run: $(RUN_STAMP) ## Start one node with its own store (ARGS="--port 8001" for more)
	@exec $(VENV)/bin/buzon serve $(ARGS)

dev: $(DEV_STAMP) ## The same with debug logs and Python's development checks
	@DEBUG=true PYTHONDEVMODE=1 exec $(VENV)/bin/buzon serve $(ARGS)

test: export PYTHONDONTWRITEBYTECODE =
test: lint typecheck ## Lint, check types and run all tests (ARGS="-k name" for some)
	@# Bytecode of the tests is made once, instead of by every process that runs some.
	@for part in tests/unit "tests --ignore tests/unit"; do $(PY) -m pytest --collect-only -qq $$part >/dev/null & done; wait
	@# Most tests mostly wait, and do so four at a time, long files first.
	@$(PY) -m pytest $(ALONE) $(ARGS) || [ $$? = 5 ]
	@$(PY) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ALONE:%=--deselect %) $(ARGS)

lint: $(DEV_STAMP) ## Check style
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "make fmt would change files"; exit 1; }

fmt: $(DEV_STAMP) ## Format the code and mend what can be mended safely
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format .

typecheck: $(DEV_STAMP) ## Check types (mypy --strict)
	@$(PY) -m mypy --num-workers 2

benchmark: $(DEV_STAMP) ## Measure speed beside a handler that does nothing
	@$(PY) -m tests.bench $(ARGS)

simulate: $(DEV_STAMP) ## Play a cluster's worst days in virtual time (SEEDS=10000; ARGS="--seed 7 --trace" for one)
	@$(PY) -m tests.simulation --seeds $(or $(SEEDS),1000) $(ARGS)

chaos: $(DEV_STAMP) ## Kill, freeze and cut off real processes under load (ARGS="--rows 1,4 --seed 7")
	@$(PY) -m tests.chaos $(ARGS)

mutate: $(DEV_STAMP) ## Take each check out once: a test must notice (ARGS="--only ownership --jobs 2")
	@$(PY) -m tests.mutation $(ARGS)

test-packages: ## Install from Debian what some tests want (redis-server, chromium, webdis, npm, nginx's nchan), if possible
	@for program in redis-server chromium webdis npm libnginx-mod-nchan; do \
		command -v $$program >/dev/null || [ -e $(NGINX_MODULES)/ngx_$${program##*-}_module.so ] \
			|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
			&& apt-get -qq update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y --no-install-recommends $$program >/dev/null; } \
			|| echo "$$program is not installed and cannot be installed here"; done

lock: | $(PY) ## Write requirements/*.lock anew from pyproject.toml
	@$(INSTALL) $(UV)
	@for pair in build:run dev:dev; do UV_PYTHON_DOWNLOADS=never $(PY) -m uv pip compile --quiet pyproject.toml \
		--group $${pair%%:*} --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
		--output-file requirements/$${pair##*:}.lock >/dev/null || exit 1; done

clean: ## Remove everything that was made, but never ./data
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find actors router tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_STAMP): requirements/run.lock pyproject.toml | $(PY)
	@echo "buzon: installing into $(VENV)" >&2
	@$(PY) $(SUITABLE) || { echo "buzon: $(VENV) is of a Python before 3.11: make clean" >&2; exit 1; }
	@$(INSTALL) --require-hashes -r requirements/run.lock
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements/dev.lock pyproject.toml | $(RUN_STAMP)
	@echo "buzon: installing what the tests need into $(VENV)" >&2
	@$(INSTALL) --require-hashes -r requirements/dev.lock
	@touch $@

$(PY):
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if command -v "$$python" >/dev/null && "$$python" $(SUITABLE); then found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
		echo "buzon: needs Python 3.11 or newer; name one with PYTHON=/path/to/python" >&2; exit 1; fi; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "buzon: $$found cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
