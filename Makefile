# Two commands do everything: `make demo` and `make test`. The rest is for those who work on it.

PYTHON ?= python3
PORT   ?= 8080
# Keys, config and data of `make demo`, the same at each start.
DATA   ?= .demo
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Every package is checked against a hash of constraints.txt. Older pips cannot do that for packages whose version is a
# range, so pip is installed first, from its own lines of the file. The checkout itself, a folder, has no hash.
LOCKED := $(PIP) install --no-require-hashes -c constraints.txt
SRC    := gateway tests bench grafana hatch_build.py
# The tests wait as much as they compute. More workers than two for each processor are faster, but then tests with real
# servers and browsers meet the time-outs that they test. Each takes up to a gigabyte of memory.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) * 2)')

# What Python compiles is kept: the tests are compiled with all that an assertion says when it fails.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long check fix clean bundle bench bench-peers constraints man package sbom

$(VENV)/.pip: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	sed -n '/^pip==/,/[^\\]$$/p' constraints.txt > $(VENV)/pip.txt
	$(PIP) install --require-hashes -r $(VENV)/pip.txt
	touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml constraints.txt
	$(LOCKED) --group build
	$(LOCKED) --no-build-isolation -e '.[speed,simulator,dashboard]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(LOCKED) --no-build-isolation -e '.[otel,postgres,s3,oidc]' --group dev
	touch $@

$(VENV)/.release: $(VENV)/.dev
	$(LOCKED) --group release
	touch $@

# Writes constraints.txt. `ARGS=--upgrade` takes the newest versions, `ARGS='--upgrade-package aiohttp'` one of them.
constraints: $(VENV)/.release
	UV_CUSTOM_COMPILE_COMMAND='make constraints' $(BIN)/uv pip compile --quiet --no-config --no-annotate \
	  --universal --python-version 3.11 --generate-hashes --all-extras --group build --group dev --group proxies \
	  --group kubernetes --group release $(ARGS) pyproject.toml --output-file constraints.txt

# Man pages of every command, in build/man: `man build/man/gateway.1`.
man: $(VENV)/.release
	rm -rf build/man && mkdir -p build/man
	$(BIN)/click-man --target build/man gateway

# What a release has: the source archive, and the wheel that is built from it.
package: $(VENV)/.dev
	rm -rf dist && mkdir dist
	$(BIN)/hatchling build -d dist -t sdist
	$(PIP) wheel --no-deps --no-build-isolation -w dist dist/*.tar.gz

# A bill of materials (CycloneDX) of what the image installs: packages, versions, licences.
EXTRAS ?= speed,otel,dashboard
sbom: $(VENV)/.release package
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(PIP) --python build/sbom/bin/python install --no-require-hashes -c constraints.txt \
	  "$$(echo dist/*.whl)[$(EXTRAS)]"
	sed "s/^dynamic = .*/version = \"$$($(BIN)/hatchling version)\"/" pyproject.toml > build/sbom/pyproject.toml
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject build/sbom/pyproject.toml --of JSON \
	  -o dist/replicate-gateway.cdx.json build/sbom/bin/python

# Gateway, simulator and a page to try them in. No token, no account.
demo: $(VENV)/.run bundle
	$(BIN)/gateway demo --port $(PORT) --data $(DATA)

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

# The tests and the npm clients are made ready beside the checks, once: otherwise each worker does it, or waits for it.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j check $(VENV)/.tests $(VENV)/.clients
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

$(VENV)/.tests: | $(VENV)/.dev
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true
	@touch $@

$(VENV)/.clients: tests/e2e/clients/package-lock.json | $(VENV)/.dev
	@$(BIN)/python -c 'from tests.support.node import install_clients; install_clients()'
	@touch $@

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
	rm -rf $(VENV) .bench .demo build dist demo/dist demo/node_modules tests/e2e/clients/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
