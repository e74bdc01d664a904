# Two commands do everything: `make demo` and `make test`. The rest is for those who work on it.

PYTHON ?= python3
PORT   ?= 8080
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
SRC    := gateway tests bench grafana hatch_build.py
# The tests wait more than they compute: four workers keep two cores busy.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) * 2)')

.PHONY: demo test test-long check fix clean bundle bench bench-peers

$(VENV)/.pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[speed,simulator,dashboard]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -c constraints.txt -e '.[otel,postgres,s3,oidc]' --group dev
	touch $@

# Gateway, simulator and a page to try them in. No token, no account.
demo: $(VENV)/.run bundle
	$(BIN)/gateway demo --port $(PORT)

# The page also runs the real npm client where Node is present.
bundle:
	@if command -v npm >/dev/null 2>&1; then \
	  cd demo && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build; \
	else echo "No npm here: the demo does without the npm client."; fi

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SRC)
	$(BIN)/ruff check $(SRC)
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir $(VENV)/.lint-imports

test: check
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

# Many more rounds of what `make test` samples: crashes, interleavings, races, property tests. Takes about an hour.
test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m long -o timeout=3600 $(ARGS)
	GATEWAY_PROPERTY_EXAMPLES=2000 $(BIN)/python -m pytest -n $(WORKERS) tests/gateway/test_properties.py $(ARGS)

# Measures what docs/performance.md promises, and prints one table. Under ten minutes; nothing else should run.
bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

# Installs what others use instead in .bench/peers, as far as that is possible here, and measures it beside the gateway.
bench-peers: $(VENV)/.dev
	$(BIN)/python -m bench.peers.install
	$(BIN)/python -m bench.peers $(ARGS)

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SRC)
	$(BIN)/ruff format $(SRC)

clean:
	rm -rf $(VENV) .bench build dist demo/dist demo/node_modules tests/e2e/clients/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
