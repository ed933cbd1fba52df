# The verbs of this repository. CI calls nothing else. Needs Rust, a C compiler and make; `make help` lists the verbs.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HIGHWATER := $(TARGET_DIR)/debug/highwater
# Simulations are built with flags and in a directory of their own, so that neither reaches anything else.
SIM_FLAGS := --cfg highwater_simulation --cfg highwater_mutants --cfg tokio_unstable
SIM_CARGO := RUSTFLAGS="$(SIM_FLAGS)" CARGO_TARGET_DIR=$(TARGET_DIR)/sim $(CARGO)
SIM := $(TARGET_DIR)/sim/sim/sim
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help check fix picture build test console upgrade chart dist image image-examples demo demo-apps bench bench-quick bench-cluster bench-idle bench-telemetry bench-access bench-abuse bench-log model fuzz chaos chaos-long chaos-selftest groups certs sim sim-long sim-build

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Everything that can be judged without running the program. Never writes outside target/.
check: ## Formatting, lints, documentation, import arrows, licences, tidiness; changes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(SIM_CARGO) clippy --profile sim --locked -p highwater-simulation -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) test --workspace --locked --test arrows --test licences --test limits --test links --test monitoring --test tidy

fix: ## Format, apply what the lints suggest, and write the tables of documents that come from the source
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	HIGHWATER_WRITE_GOLDEN=1 $(CARGO) test -p highwater-cli the_document_has_the_table_of_settings
	HIGHWATER_WRITE_GOLDEN=1 $(CARGO) test -p highwater-node --lib the_reference_is_what_the_contract_says

picture: build ## The terminal session of README.md, drawn from what its commands print
	HIGHWATER_WRITE_GOLDEN=1 $(CARGO) test -p highwater-tests --test documents the_picture_shows

# The binary, which the tests of the whole system start, and the tests: in one go, so that nothing is built twice.
build:
	$(CARGO) build --workspace --bins --tests --locked

# Random inputs come from one seed, so that a run can be repeated; fresh ones are tried by sim-long.
test: build sim-build ## Every test, some simulation; last, stubs of another language, a day of the example applications, the console in a browser, images, an upgrade, and the Helm charts
	PROPTEST_RNG_SEED=$(SEED) $(CARGO) test --workspace --locked --no-fail-fast
	$(SIM) log --seeds 4
	$(SIM) group --seeds 40
	tests/interop/run $(HIGHWATER)
	tests/console/run $(HIGHWATER)
	$(TARGET_DIR)/debug/demo_apps
	examples/activity/browser/run $(TARGET_DIR)/debug
	tests/deploy/dist.sh $(HIGHWATER) $(TARGET_DIR)/debug/sbom
	tests/deploy/image.sh $(HIGHWATER)
	tests/deploy/image-examples.sh $(TARGET_DIR)/debug
	tests/deploy/compose.sh $(HIGHWATER)
	tests/upgrade/run
	PROGRAMS=$(TARGET_DIR)/debug tests/deploy/run

console: build ## The console in a real browser: every page by mouse and keyboard, a killed node, screenshots in target/console
	tests/console/run $(HIGHWATER)

upgrade: build ## A cluster of an earlier version, which is built first, becomes one of this version under load
	tests/upgrade/run

# How pods of it behave is a test like any other (`cargo test --test pods`).
chart: ## The Helm charts, rendered and checked against Kubernetes' schemas; installs Helm and the schemas in target/deploy
	tests/deploy/run

sim-build:
	$(SIM_CARGO) build --profile sim --locked -p highwater-simulation

sim: sim-build ## The log and groups in simulated worlds, from SEED on, and every mutant; prints figures and how to replay
	$(SIM) log --seed $(SEED) --seeds 14
	$(SIM) group --seed $(SEED) --seeds 200
	$(SIM) mutants

sim-long: sim-build ## The same for hours, and the log beside its model, from seeds that are new each time
	PROPTEST_CASES=3000000 PROPTEST_RNG_SEED=$$(date +%s) $(CARGO) test --workspace --locked --test model
	$(SIM) log --seed $$(date +%s) --seeds 2000
	$(SIM) group --seed $$(date +%s) --seeds 10000 --seconds 120
	$(SIM) mutants

model: ## The rules of votes, memory, refill and new ids, kept and broken, in every state of larger worlds (3 minutes)
	$(CARGO) build --release --locked -p highwater-model
	$(TARGET_DIR)/release/model --long

FUZZ_SECONDS ?= 60

fuzz: build ## New inputs for every decoder, guided by coverage, FUZZ_SECONDS for each; what is found joins the saved corpus
	CARGO="$(CARGO)" TARGET_DIR="$(TARGET_DIR)" tests/fuzz/run $(FUZZ_SECONDS)

dist: ## A release in target/dist: stripped binary, archive with completions, bill of materials, checksums
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bin highwater --bin sbom
	deploy/dist $(TARGET_DIR)/release/highwater $(TARGET_DIR)/release/sbom $(TARGET_DIR)/dist

image: dist ## The container image of that in target/image, made without a container daemon; less than 40 MiB
	deploy/image $(TARGET_DIR)/dist/highwater $(TARGET_DIR)/image

image-examples: ## The same of the example applications in target/image-examples, all six programs; less than 64 MiB
	$(CARGO) build --release --locked -p highwater-users -p highwater-activity -p highwater-school -p highwater-calc --bins
	deploy/examples/image $(TARGET_DIR)/release $(TARGET_DIR)/image-examples

demo: ## Three nodes, a topic, a killed leader, and a proof that nothing was lost, doubled or reordered
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/demo

demo-apps: ## A day of the four applications in examples/, a node killed at noon, and in the evening an account of what each saw
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests -p highwater-users -p highwater-activity -p highwater-school -p highwater-calc --bins
	$(TARGET_DIR)/release/demo_apps

bench: bench-build ## Throughput, latency and CPU, each beside plain code of the same run (5 minutes; docs/benchmarking.md)
	$(TARGET_DIR)/release/bench --out $(TARGET_DIR)/bench/bench.json

bench-quick: bench-build ## The same in a minute, less certain
	$(TARGET_DIR)/release/bench --quick --out $(TARGET_DIR)/bench/bench-quick.json

.PHONY: bench-build
bench-build:
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins

bench-idle: ## What partitions cost that nobody uses: CPU, memory and wakeups of three idle nodes; how soon nodes answer
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/idle

bench-telemetry: ## What it costs nodes to tell about themselves: log, traces, metrics (10 minutes)
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/telemetry

bench-access: ## What it costs to decide who may do what, with 10,000 rules
	HIGHWATER_BENCH=1 $(CARGO) test --release --locked -p highwater-node --lib -- --nocapture decisions_under_ten_thousand_rules

bench-abuse: ## What others feel of floods, bombs and a tenant that sends ten times its quota (10 minutes)
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/abuse

bench-cluster: ## How long clients wait when leaders die or move and nodes restart; freshness of followers (10 minutes)
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/bench_cluster

bench-log: ## The log beside plain files: appends, reads, opening after a kill, idle logs
	$(CARGO) run --release --locked -p highwater-log --example bench -- --dir $(TARGET_DIR)/bench-log

CHAOS := $(TARGET_DIR)/debug/chaos $(if $(filter command environment,$(origin SEED)),--seed $(SEED))
RUNS ?= 40

chaos: chaos-build ## Kills, pauses, partitions, power cuts and failing disks under load, and a verdict (10 minutes; SEED=)
	$(CHAOS)

chaos-long: chaos-build ## The same with one seed after the other (RUNS=40: a night)
	$(CHAOS) --runs $(RUNS)

chaos-selftest: chaos-build ## A cluster whose disks lie about syncs loses power: the loss must be reported
	$(CHAOS) --self-test

groups: ## Members and nodes of a consumer group killed, paused and restarted for five minutes, and a verdict (SEED=)
	$(CARGO) build --release --locked -p highwater-cli -p highwater-tests --bins
	$(TARGET_DIR)/release/groups $(if $(filter command environment,$(origin SEED)),--seed $(SEED))

# The development build: its assertions are on.
.PHONY: chaos-build
chaos-build:
	$(CARGO) build --workspace --bins --locked

certs: build ## Certificates for development in certs/: an authority, a node, a client
	$(HIGHWATER) certs ca --cluster demo --out certs
	$(HIGHWATER) certs node node-1 --ca-dir certs --out certs
	$(HIGHWATER) certs client default alice --ca-dir certs --out certs
