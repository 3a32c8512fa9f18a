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
# Every test program but those that have a target of their own below.
TEST_PROGRAMS := $(filter-out suite openzfs,$(basename $(notdir $(wildcard $(addsuffix /*.rs,$(TEST_DIRS))))) \
	$(notdir $(patsubst %/main.rs,%,$(wildcard $(addsuffix /*/main.rs,$(TEST_DIRS))))))
# Modules of orchestrator/tests/suite that mostly wait, for guests, time-outs and clocks: they run beside the rest. A test
# is of one half or of the other, as what is named here is what the other half skips.
WAITING := debian:: disk:: guests:: hang:: network:: nodes:: privacy:: time:: zones::
# Tests say here why they were skipped (orchestrator/tests/support/prerequisites.rs).
SKIPPED := build/skipped-tests
# All of the workspace, and always all: another choice has other features of dependencies, which are then built again.
# More tests at once than there are processors, as even those that compute wait for most of their time.
TEST = RUST_TEST_THREADS=4 HELIOS_CI_SKIPPED=$(abspath $(SKIPPED)) $(TESTING) $(CARGO) test --workspace --locked --no-fail-fast
MAKE_QUIETLY = $(MAKE) --no-print-directory CARGO="$(CARGO)"

.PHONY: help setup build agent guest image-debian openzfs demo check test test-full static programs format lint illumos unit unit-programs unit-quick unit-waiting unit-openzfs docs bench audit install package clean

help:
	@echo "make demo        everything once on this machine: forge, push, virtual machine, live log, statuses"
	@echo "make demo KEEP=1 the same, and leave it running: it says how to log in, to push and to stop"
	@echo "make setup       install what all of these need; the others install what they need themselves"
	@echo "make check       for while you work: format, lints of what you changed, rules of the code"
	@echo "make test        format, lints, illumos type-check, all tests (what CI runs)"
	@echo "make test-full   also what takes long: the Debian guest, and ZFS itself"
	@echo "make test-full HELIOS_CI_FORGEJO=/path/of/forgejo  the same, and conversations with a real Forgejo"
	@echo "make image-debian  a golden disk with all of Debian 12, for UEFI: $(DEBIAN)"
	@echo "make openzfs     a guest with real OpenZFS, for tests of the zone back end: $(OPENZFS)"
	@echo "make bench       measurements, as ratios within one run; BENCH=flood for one part (docs/performance.md)"
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

# The agent's build is mostly one long link, so it goes beside what checks the sources.
test: setup-test format
	@$(MAKE_QUIETLY) -j2 --output-sync=target static programs
	@$(MAKE_QUIETLY) unit

# One after the other, as cargo lets only one build in a target folder.
static:
	@MAKEFLAGS= $(MAKE_QUIETLY) lint illumos docs

programs:
	@MAKEFLAGS= $(MAKE_QUIETLY) agent guest

# The tests look for these guests when they run, so they come first. HELIOS_CI_FORGEJO, of the environment or of this
# command, names a Forgejo's program.
test-full: image-debian openzfs
	HELIOS_CI_FULL=1 $(MAKE) --no-print-directory test

# While one works: no machine is booted, nothing is linked but one test. docs/development.md says how long each takes.
check: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --lib --bins --tests --locked -- -D warnings

format: setup-build
	$(CARGO) fmt --all --check

lint: setup-build
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

illumos: setup-test
	$(ILLUMOS_ENV) $(CARGO) clippy --workspace --locked --target $(ILLUMOS) -- -D warnings

# One build for programs and tests together: apart from each other they have other features of dependencies, and most
# would be built twice. One run names all that fails: neither a failed test nor a failed part ends the rest.
unit: setup-test agent guest
	$(CARGO) build --workspace --locked --lib --bins --tests
	@mkdir -p $(dir $(SKIPPED)) && : >$(SKIPPED)
	@status=0; \
	$(MAKE_QUIETLY) -j2 --keep-going --output-sync=target unit-waiting unit-programs unit-quick unit-openzfs || status=$$?; \
	test ! -s $(SKIPPED) || { echo "skipped tests, by reason:"; cut -f 1 $(SKIPPED) | sort | uniq -c; }; \
	exit $$status

unit-programs:
	$(TEST) --lib --bins $(addprefix --test ,$(TEST_PROGRAMS))

unit-quick:
	TMPDIR=$$(.ci/test-dir) $(TEST) --test suite -- $(addprefix --skip ,$(WAITING))

unit-waiting:
	$(TEST) --test suite -- $(WAITING)

unit-openzfs:
	$(TEST) --test openzfs

# Examples there are none; asked for them, cargo takes the features that tests need, for which `lint` has checked all.
docs: setup-build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps --document-private-items \
		--lib --bin helios-demo --examples -q

# BENCH names parts (orchestrator/benches/daemon/main.rs lists them), or programs of their own: `logs`, and `queue`, which
# is only run when it is named. INTO is a document whose table gets what was measured.
PARTS := $(filter-out logs queue,$(BENCH))
bench: setup-test agent guest
ifneq ($(PARTS)$(if $(BENCH),,all),)
	HELIOS_CI_AGENT=$(abspath $(AGENT)) HELIOS_CI_GUEST=$(abspath $(GUEST)) $(CARGO) bench --workspace --locked --bench daemon -- \
		$(PARTS) $(if $(INTO),--into $(abspath $(INTO)))
endif
ifneq ($(filter logs,$(or $(BENCH),logs)),)
	$(CARGO) bench --workspace --locked --bench logs
endif
ifneq ($(filter queue,$(BENCH)),)
	$(CARGO) bench --workspace --locked --bench queue
endif

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
