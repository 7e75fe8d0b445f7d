# The only door: everything a person types.
#
#   make run     set up, build and run Spanloom on the embedded store
#   make test    set up and pass every check and test, real clients included
#
#   make check   format, lints, tree checks (fast)
#   make unit    Rust tests only
#   make e2e     real client libraries against the real binary
#   make outage  the intake away for ten minutes, by hand (OUTAGE_SECONDS, OUTAGE_RATE)
#   make bench   benchmarks with ratios to a yardstick in the same run
#   make settings-page   write docs/settings.md from the table of settings
#   make fuzz    each fuzz target for FUZZ_SECONDS (needs cargo-fuzz and nightly)
#   make clean   remove what was built

CARGO ?= cargo
PYTHON ?= python3
DATA_DIR ?= $(CURDIR)/.cache/data
FUZZ_SECONDS ?= 60
ARGS ?=

# Socket in a place that needs no root, unless the caller chose one.
export DD_APM_RECEIVER_SOCKET ?= $(CURDIR)/.cache/apm.socket

.PHONY: run build test check unit e2e outage bench fuzz clean clients settings-page

run: build
	@mkdir -p $(DATA_DIR)
	$(or $(CARGO_TARGET_DIR),target)/release/spanloom run --data-dir $(DATA_DIR) $(ARGS)

build:
	@command -v cc >/dev/null || { echo "a C compiler is needed (Debian: apt-get install build-essential)"; exit 1; }
	$(CARGO) build --release --locked -p spanloom

test: check unit e2e

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) run -q --locked -p xtask -- tidy

unit:
	$(CARGO) test --workspace --locked

e2e: clients
	$(CARGO) build --locked -p spanloom
	.venv/bin/python -m pytest -q tests/e2e

# Real client libraries, pinned. Stamps make a second run free.
clients: .cache/python.stamp .cache/node.stamp

.cache/python.stamp: tests/e2e/requirements.txt $(wildcard clients/*/requirements.txt)
	@mkdir -p .cache
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check $(addprefix -r ,$^)
	@touch $@

.cache/node.stamp: $(wildcard clients/*/package.json)
	@mkdir -p .cache
	for d in $(dir $^); do (cd $$d && npm install --no-audit --no-fund --no-package-lock --loglevel=error) || exit 1; done
	@touch $@

settings-page:
	$(CARGO) run -q --locked -p spanloom -- check --docs > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

outage: build
	SPANLOOM_BINARY=$(abspath $(or $(CARGO_TARGET_DIR),target)/release/spanloom) \
		$(CARGO) test --locked -p spanloom --test outage -- --ignored --nocapture

bench:
	$(CARGO) bench --workspace --locked --benches $(ARGS)

fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	cd fuzz && for t in $$($(CARGO) +nightly fuzz list); do $(CARGO) +nightly fuzz run $$t -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	$(CARGO) clean
	rm -rf .venv .cache clients/*/node_modules
