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
#   make fuzz    each fuzz target for FUZZ_SECONDS
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
	@for d in fuzz benches-peer; do $(CARGO) update -q --workspace --locked --manifest-path $$d/Cargo.toml || \
		{ echo "$$d/Cargo.lock is behind: cargo update --workspace --manifest-path $$d/Cargo.toml"; exit 1; }; done

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

# libFuzzer with the compiler that is there: coverage comes from LLVM's own pass.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions
FUZZ_HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_DIR := $(abspath $(or $(CARGO_TARGET_DIR),fuzz/target))

fuzz:
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed (Debian: apt-get install build-essential)"; exit 1; }
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(FUZZ_DIR) \
		$(CARGO) build --release --bins --locked --target $(FUZZ_HOST)
	@for t in $(basename $(notdir $(wildcard fuzz/targets/*.rs))); do \
		mkdir -p fuzz/corpus/$$t && echo "$$t, $(FUZZ_SECONDS) s" && \
		$(FUZZ_DIR)/$(FUZZ_HOST)/release/$$t -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -verbosity=0 \
			-print_final_stats=1 -artifact_prefix=fuzz/ fuzz/corpus/$$t || exit 1; \
	done

clean:
	$(CARGO) clean
	rm -rf .venv .cache clients/*/node_modules
