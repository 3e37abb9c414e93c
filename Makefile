# The commands of this project. `make` alone lists them.

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET)/tools
VENV := .venv
PYTHON := $(VENV)/bin/python

APT_TEST := gcc make ca-certificates curl nginx nghttp2-client python3-venv chromium testssl.sh faketime libnss-wrapper softhsm2 opensc
APT_BENCH := nginx haproxy wrk nghttp2-client valgrind

.PHONY: help dev build deps bench-deps test check docs fuzz bench soak

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

dev: ## build and run the main job on embedded defaults
	cargo run --quiet -p oilskin --no-default-features -- dev

build: ## the release binary
	cargo build --release -p oilskin

deps: ## what tests need: apt packages, .venv, tests/node
	@.ci/apt $(APT_TEST)
	@.ci/python $(VENV) tests/requirements.txt
	@.ci/node $(VENV) tests/node

bench-deps: ## what the benchmark needs
	@.ci/apt $(APT_BENCH)
	@.ci/python $(VENV) bench/requirements.txt

test: deps ## all tests; installs what they need
	@.ci/suites

check: deps ## format, lints, docs, dependencies, file sizes, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy -p oilskin --no-default-features --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@.ci/deny $(TOOLS)
	@.ci/file-sizes

docs: ## rewrite the generated pages
	OILSKIN_BLESS=1 cargo test --quiet -p oilskin errors_page
	cargo run --quiet -p oilskin-config --example generate

fuzz: ## coverage-guided fuzzing (nightly, cargo-fuzz): make fuzz TIME=60
	@.ci/fuzz $(TOOLS) $(or $(TIME),60)

bench: bench-deps build ## side by side with nginx, HAProxy and Envoy; writes bench/RESULTS.md
	cargo run --release -p oilskin-bench -- $(BENCH)

soak: deps ## long runs: property tests, ten million nonces, times of refusals, a million inputs a fuzz target, replicas for ten minutes
	PROPTEST_CASES=100000 cargo test --release -p oilskin-config -p oilskin-crypto -p oilskin -- --nocapture
	cargo run --release -p oilskin-tests --bin soak -- $(SEED)
	cargo test -p oilskin-tests --test suite -- --ignored --nocapture
