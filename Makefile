# Two commands: `make demo` and `make test`. Both do all their own set-up: each target installs what it needs.

.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

MUSL := x86_64-unknown-linux-musl
ILLUMOS := x86_64-unknown-illumos
AGENT := target/$(MUSL)/agent/helios-agent
GUEST := build/images/tiny
DEBIAN := build/images/debian
OPENZFS := build/openzfs

# A type-check compiles the C parts of dependencies and never links them, so any C compiler will do.
ILLUMOS_ENV := PKG_CONFIG_ALLOW_CROSS=1 CC_x86_64_unknown_illumos=gcc AR_x86_64_unknown_illumos=ar

# What install and package lay; any two files will do. Where everything goes: smf/helios-ci.p5m.
HELIOS_CI_BIN ?= target/release/helios-ci
HELIOS_AGENT ?= $(AGENT)
LAYING := HELIOS_CI_BIN=$(abspath $(HELIOS_CI_BIN)) HELIOS_AGENT=$(abspath $(HELIOS_AGENT))
PACKAGE_DIR ?= build/package

TESTING := HELIOS_CI_AGENT=$(abspath $(AGENT)) HELIOS_CI_GUEST=$(abspath $(GUEST)) HELIOS_CI_DEBIAN=$(abspath $(DEBIAN)) \
	HELIOS_CI_OPENZFS=$(abspath $(OPENZFS))
TEST_DIRS := agent/tests proto/tests orchestrator/tests orchestrator/fakeforge/tests orchestrator/illumos-sim/tests
TESTS := $(basename $(notdir $(wildcard $(addsuffix /*.rs,$(TEST_DIRS))))) \
	$(notdir $(patsubst %/main.rs,%,$(wildcard $(addsuffix /*/main.rs,$(TEST_DIRS)))))
# What mostly waits, for guests and time-outs, runs beside the rest.
WAITING := debian disk guests hang nodes openzfs privacy time zones

.PHONY: help setup build agent guest image-debian openzfs demo check test test-full lint illumos unit unit-quick unit-waiting docs bench audit install package clean

help:
	@echo "make demo        everything once on this machine: forge, push, virtual machine, live log, statuses"
	@echo "make demo KEEP=1 the same, and leave it running: it says how to log in, to push and to stop"
	@echo "make setup       install what all of these need; the others install what they need themselves"
	@echo "make check       for while you work: format, lints of what you changed, rules of the code"
	@echo "make test        format, lints, illumos type-check, all tests (what CI runs)"
	@echo "make test-full   also what takes long: the Debian guest, and ZFS itself"
	@echo "make image-debian  a golden disk with all of Debian 12, for UEFI: $(DEBIAN)"
	@echo "make openzfs     a guest with real OpenZFS, for tests of the zone back end: $(OPENZFS)"
	@echo "make bench       measurements, as ratios within one run"
	@echo "make install     programs, services, rights below DESTDIR, as smf/helios-ci.p5m lists them"
	@echo "make package     the same as an archive with an install script: $(PACKAGE_DIR)/helios-ci-VERSION.tar.gz"
	@echo "make audit       licences and advisories of dependencies (needs cargo-deny and the network)"

setup: setup-test

# What one part of the project needs: build, demo or test.
setup-%:
	@.ci/setup $*

build: setup-build
	$(CARGO) build --workspace --locked

# The agent is always built as it is shipped: static, small.
agent: setup-build
	$(CARGO) build --locked --profile agent --target $(MUSL) -p helios-agent

guest: setup-demo
	images/tiny/build.sh

# What only this needs is installed only here.
image-debian:
	@.ci/setup demo mmdebstrap dosfstools mtools fdisk fakeroot uidmap ovmf
	images/debian/build.sh

openzfs:
	@.ci/setup demo libelf1
	images/openzfs/build.sh

demo:
	@CARGO="$(CARGO)" KEEP="$(KEEP)" .ci/demo

test: setup-test lint illumos agent guest unit docs

# The tests look for these guests when they run, so they come first.
test-full: image-debian openzfs
	HELIOS_CI_FULL=1 $(MAKE) --no-print-directory test

# While one works: no machine is booted, nothing is linked but one test. docs/development.md says how long each takes.
check: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --lib --bins --tests --locked -- -D warnings

lint: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

illumos: setup-test
	$(ILLUMOS_ENV) $(CARGO) clippy --workspace --locked --target $(ILLUMOS) -- -D warnings

# One run names all that fails: neither a failed test nor a failed half ends the rest.
unit: setup-test build agent guest
	$(TESTING) $(CARGO) test --workspace --locked --no-run
	$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target unit-quick unit-waiting

unit-quick:
	$(TESTING) $(CARGO) test --workspace --locked --no-fail-fast --lib --bins $(addprefix --test ,$(filter-out $(WAITING),$(TESTS)))

unit-waiting:
	$(TESTING) $(CARGO) test --workspace --locked --no-fail-fast $(addprefix --test ,$(WAITING))

docs: setup-build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps --document-private-items -q

bench: setup-test build agent guest
	HELIOS_CI_AGENT=$(abspath $(AGENT)) HELIOS_CI_GUEST=$(abspath $(GUEST)) $(CARGO) bench --locked -p helios-ci --bench logs --bench daemon

audit:
	@command -v cargo-deny >/dev/null || { echo "audit: install it with 'cargo install --locked cargo-deny'" >&2; exit 1; }
	$(CARGO) deny --locked check

# Builds nothing, as it may run as root: first cargo build --release --locked -p helios-ci, and make agent.
install:
	@$(LAYING) smf/install.sh tree "$(DESTDIR)"

package:
	@$(LAYING) smf/package.sh "$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" $(PACKAGE_DIR)

clean:
	$(CARGO) clean
	rm -rf build
