# Each target sets up what it needs: Python 3.11 or newer, make and a C compiler are enough.
PYTHON ?= python3
# Tests that run at once: one more than two cores, since some wait.
JOBS ?= 3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(VENV)/.browser
SECRETS ?= deploy/secrets
HOSTS := $(VENV)/.hosts

.DEFAULT_GOAL := help
.PHONY: help demo serve key test test-dashboard check format bench-digits bench-audit bench-cost bench-dashboard bench-intake bench-scale bench-server bench-transfer bench-upload storm soak fuzz foundation catalog openapi options lock secrets clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): requirements/dev.txt pyproject.toml tests/app/tus/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "TDMR needs Python 3.11 or newer; say which with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/npm ci --prefix tests/app/tus --ignore-scripts --no-audit --no-fund --silent
	@touch $(READY)

# Debian's Chromium; elsewhere, install one and say where: CHROMIUM=/path make test.
$(BROWSER): $(READY)
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || { \
	  command -v apt-get >/dev/null || { echo "Install Chromium, or say where it is: CHROMIUM=..." >&2; exit 1; }; \
	  run=$$(test "$$(id -u)" = 0 || echo sudo); \
	  $$run apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }
	@touch $(BROWSER)

# iproute2 makes the network of tests/test_hosts.py; without it, hosts are loopback addresses.
$(HOSTS): $(READY)
	@command -v ip >/dev/null || ! command -v apt-get >/dev/null || { \
	  run=$$(test "$$(id -u)" = 0 || echo sudo); \
	  $$run apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends iproute2 >/dev/null; }
	@touch $(HOSTS)

demo: $(READY) ## Upload digits, distil a student over HTTP, use it with plain timm
	$(BIN)/python -m demo

serve: $(READY) ## Start the embedded service; prints its address and access key
	$(BIN)/tdmr-server serve $(ARGS)

key: $(READY) ## Make another access key
	$(BIN)/tdmr-server keys create $(ARGS)

test: check $(BROWSER) $(HOSTS) ## Run every check and every test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-dashboard: $(BROWSER) ## The story in a real browser; leaves artifacts/screenshots/
	$(BIN)/python -m pytest tests/dashboard $(ARGS)

check: $(READY) ## Lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -c "import app.main, worker, tdmr, sys; assert 'torch' not in sys.modules"

format: $(READY) ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-digits: $(READY) ## The demo's job over paired seeds: the figures of README (SEEDS=5)
	$(BIN)/python -m benchmarks.digits $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

bench-cost: $(READY) ## What an epoch and a job of each method cost (FAST=1: at most 5 minutes)
	$(BIN)/python -m benchmarks.cost

bench-transfer: $(READY) ## TDMR against seven other ways to train a student; hours, FAST=1: minutes
	$(BIN)/python -m benchmarks.transfer $(ARGS)

bench-audit: $(READY) ## What the audit finds of planted duplicates, leaks and mislabels (FAST=1)
	$(BIN)/python -m benchmarks.audit

bench-intake: $(READY) ## The check of an upload against a bare Pillow loop (FAST=1)
	$(BIN)/python -m benchmarks.intake

storm: $(READY) ## Kill workers and trainings at random, and judge what became of their jobs (KILLS=1000)
	$(BIN)/python -m benchmarks.storm $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REAL),--real $(REAL)) $(ARGS)

soak: $(READY) ## An hour of submitting, polling, cancelling and killing: nothing grows or stays (FAST=1)
	$(BIN)/python -m benchmarks.soak

bench-server: $(READY) ## What asking for a job costs beside an empty route; 500 clients that poll (FAST=1)
	$(BIN)/python -m benchmarks.server

bench-scale: $(READY) ## A claim among 10,000 that wait, lists of a million, uploads and downloads (FAST=1)
	$(BIN)/python -m benchmarks.scale

bench-dashboard: $(BROWSER) ## What 20 open tabs on a running job cost the server (FAST=1)
	$(BIN)/python -m benchmarks.dashboard

bench-upload: $(READY) ## The server's memory under a large upload and download (GIGABYTES=20), and 200 cuts
	$(BIN)/python -m benchmarks.uploads $(if $(GIGABYTES),--gigabytes $(GIGABYTES)) $(ARGS)

fuzz: $(READY) ## 10,000 hostile uploads; 100,000 requests; the ledger's state machine; uploads cut (FAST=1)
	$(BIN)/python -m benchmarks.corpus
	$(BIN)/python -m benchmarks.contract $(if $(FAST),--cases 5000)
	$(if $(FAST),,HYPOTHESIS_PROFILE=long) $(BIN)/python -m pytest tests/app/test_ledger_machine.py \
	  tests/app/test_uploads_cut.py $(ARGS)

foundation: $(READY) ## Pre-train a bundled foundation again (FAMILY=transformer, cnn or hybrid)
	$(BIN)/python scripts/pretrain_letters.py $(if $(FAMILY),--family $(FAMILY)) $(ARGS)

catalog: $(READY) ## Write the catalog of models again, after a new timm
	$(BIN)/python scripts/make_catalog.py

openapi: $(READY) ## Write docs/openapi.json anew, after the API has changed
	$(BIN)/tdmr-server openapi > docs/openapi.json

options: $(READY) ## Write the tables of docs/options.md anew, after an option has changed
	$(BIN)/python scripts/make_options.py

lock: $(READY) ## Resolve the locked requirements again
	$(BIN)/python -m pip install --quiet uv
	for role in server worker dev; do \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	    --python-version 3.11 --extra $$role pyproject.toml -o requirements/$$role.txt || exit 1; \
	done

# Readable for the containers' own users, whose numbers aren't this one's.
secrets: ## Random passwords for docker-compose.yml, once, into deploy/secrets/
	@mkdir -p -m 700 $(SECRETS)
	@for name in tdmr_database_password tdmr_broker_password tdmr_storage_access_key tdmr_storage_secret_key; do \
	  test -e $(SECRETS)/$$name || { od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > $(SECRETS)/$$name && chmod 644 $(SECRETS)/$$name; }; \
	done

clean: ## Remove what the other targets made, but for the service's own data in var/
	rm -rf $(VENV) tests/app/tus/node_modules demo/out demo/report.json .mypy_cache .ruff_cache .pytest_cache *.egg-info
