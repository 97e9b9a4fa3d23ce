# Every operator verb, thin over the program. Values come from the environment or from
# .env.platform.local (ignored by git); `make help` lists the verbs.

ifneq (,$(wildcard .env.platform.local))
include .env.platform.local
export $(shell sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\) *=.*/\1/p' .env.platform.local)
endif

.DEFAULT_GOAL := help
SHELL := bash

PROFILE ?= $(or $(WELLSPRING_PROFILE),local)
RUNS_ROOT ?= runs
WELLSPRING ?= cargo run --release --quiet --
W = $(WELLSPRING) --profile $(PROFILE) --root $(RUNS_ROOT)

# Sealed worlds
ORACLE_ENGINE_RELEASE ?= local
WORLD = $(if $(ORACLE_ENGINE_RUN_ROOT),--engine-run-root $(ORACLE_ENGINE_RUN_ROOT)) \
        $(if $(ORACLE_SCENARIO_ID),--scenario-id $(ORACLE_SCENARIO_ID))
SORT = $(W) oracle sort $(WORLD) \
       $(if $(ORACLE_STREAM_VIEW_ROOT),--stream-view-root $(ORACLE_STREAM_VIEW_ROOT))
LISTS := config/platform/wsp

# Scenario Runner
SR_WIRING ?= config/platform/sr/wiring_local.yaml
SR_POLICY ?= config/platform/sr/policy_v0.yaml
SR_RUN_EQUIVALENCE_KEY ?= local_reuse_$(shell date -u +%Y%m%dT%H%M%SZ)
SR_SEED ?= 42
SR_SCENARIO_ID ?= baseline_v1
SR_WINDOW_START ?= 2026-01-01T00:00:00Z
SR_WINDOW_END ?= 2026-01-02T00:00:00Z
SR_REEMIT_KIND ?= READY_ONLY

# Services
IG_HOST ?= 127.0.0.1
IG_PORT ?= 8081
WSP_MAX_EVENTS_PER_OUTPUT ?= 0
PLATFORM_SMOKE_MAX_EVENTS ?= 20
DEMO_EVENTS ?= 200000
BENCHES ?= floor data_plane in_process admit_latency log_append index_claims http_push stream_sort recovery actor_hop evidence
FUZZ_TARGET ?= envelope
FUZZ_SECONDS ?= 300

.PHONY: help
help: ## List every verb
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-46s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: build demo test test-fast simulate lint golden bench campaign mutations fuzz
build: ## Build the program
	cargo build --release
demo: ## Generate, seal, stream and verify a world (DEMO_EVENTS, DEMO_FLAGS)
	$(WELLSPRING) demo --events $(DEMO_EVENTS) $(DEMO_FLAGS)
test: lint ## Format, lints, and every test: what CI runs
	cargo test --workspace
	infra/parity/test
test-fast: ## Tests of rules and actors only, seconds
	cargo test --workspace --lib
simulate: ## Simulate the plane under SEEDS seeds (300), or replay one SEED
	WELLSPRING_SIM_SEED=$(SEED) WELLSPRING_SIM_SEEDS=$(or $(SEEDS),300) cargo test --profile simulation --test simulation -- --nocapture --exact $(if $(SEED),one_seed,seeds_keep_every_promise)
lint: ## Format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --test parity -- -D warnings
golden: ## Write generated parts of the pages anew (reason codes)
	WELLSPRING_UPDATE_GOLDEN=1 cargo test --test repository reason_codes
bench: ## Every bench beside its floor; the comparison goes to target/bench/bench-report.md (BENCHES picks some)
	cargo bench $(addprefix --bench ,$(BENCHES))
campaign: ## Kills, failpoints, disk faults, fuzzing for hours (CAMPAIGN_KILLS, CAMPAIGN_FUZZ_SECONDS, SEEDS)
	tests/campaign/run
mutations: ## Deliberate bugs in a scratch copy: each must be caught by its test
	tests/mutations/run
fuzz: ## Coverage-guided fuzzing of FUZZ_TARGET for FUZZ_SECONDS; needs the nightly toolchain
	command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	mkdir -p fuzz/corpus/$(FUZZ_TARGET)
	cargo +nightly fuzz run $(FUZZ_TARGET) fuzz/corpus/$(FUZZ_TARGET) tests/hostile_inputs/corpus/$(FUZZ_TARGET) \
	  -- -max_total_time=$(FUZZ_SECONDS)

# The parity stack: S3, Kinesis and PostgreSQL on this machine (docs/runbooks/parity.md)
PARITY = infra/parity/with $(WELLSPRING) --profile local_parity
.PHONY: parity-up parity-down parity-status parity-test
parity-up: ## Start the parity stack and make its buckets, streams and schema
	infra/parity/up
	$(PARITY) bootstrap
parity-down: ## End the parity stack; its data stay (infra/parity/down --purge removes them)
	infra/parity/down
parity-status: ## Show every server of the parity stack
	infra/parity/status
parity-test: ## Test against a parity stack of its own
	infra/parity/test

.PHONY: platform-parity-stack-up platform-parity-stack-down platform-parity-stack-status platform-parity-bootstrap \
        platform-parity-smoke platform-oracle-sync platform-ig-service-parity
platform-parity-stack-up: parity-up ## The same as parity-up
platform-parity-stack-down: parity-down ## The same as parity-down
platform-parity-stack-status: parity-status ## The same as parity-status
platform-parity-bootstrap: ## Make the buckets, streams and schema of local_parity
	$(PARITY) bootstrap
platform-parity-smoke: ## A world through the parity stack: 20, 200 per output, PARITY_SMOKE_EVENTS; verified
	cargo build --release
	infra/parity/smoke
platform-oracle-sync: ## Copy a world (ORACLE_SYNC_SOURCE) to ORACLE_ENGINE_RUN_ROOT of the parity stack
	$(PARITY) oracle sync --from $(ORACLE_SYNC_SOURCE) --to $(ORACLE_ENGINE_RUN_ROOT)
platform-ig-service-parity: ## Serve the ingestion gate on the parity stack (IG_HOST)
	$(PARITY) gate serve --host $(IG_HOST)

.PHONY: platform-run-new platform-bus-clean platform-smoke
platform-run-new: ## Create a platform run and make it active
	$(W) run new
platform-bus-clean: ## Remove the control bus messages of the active run
	run=$$(cat $(RUNS_ROOT)/fraud-platform/ACTIVE_RUN_ID) && rm -rf $(RUNS_ROOT)/fraud-platform/$$run/control_bus
platform-smoke: ## New run, scenario to READY, a few events through the gate
	$(MAKE) platform-run-new platform-bus-clean
	$(MAKE) platform-sr-run-reuse SR_RUN_EQUIVALENCE_KEY=smoke_$$(date -u +%Y%m%dT%H%M%SZ)_$$$$
	$(W) up --once --max-events-per-output $(PLATFORM_SMOKE_MAX_EVENTS)

.PHONY: platform-oracle-pack platform-oracle-check platform-oracle-check-strict
platform-oracle-pack: ## Pack and seal a world (ORACLE_ENGINE_RUN_ROOT, ORACLE_SCENARIO_ID)
	$(W) oracle pack $(WORLD) --engine-release $(ORACLE_ENGINE_RELEASE)
platform-oracle-check: ## Check a world; a missing seal is a warning
	$(W) oracle check $(WORLD) --allow-unsealed
platform-oracle-check-strict: ## Check a world; a missing seal is an error
	$(W) oracle check $(WORLD) --strict-seal

.PHONY: platform-oracle-stream-sort platform-oracle-stream-sort-traffic-both \
        platform-oracle-stream-sort-context-fraud platform-oracle-stream-sort-context-baseline \
        platform-oracle-stream-sort-context-truth
platform-oracle-stream-sort: ## Sort the stream views of the traffic list (ORACLE_OUTPUT_ID: one)
	$(SORT) $(if $(ORACLE_OUTPUT_ID),--output-id $(ORACLE_OUTPUT_ID))
platform-oracle-stream-sort-traffic-both: ## Sort both traffic outputs
	$(SORT) --output-ids-ref $(LISTS)/traffic_outputs_dual_v0.yaml
platform-oracle-stream-sort-context-fraud: ## Sort the context of fraud traffic
	$(SORT) --output-ids-ref $(LISTS)/context_fraud_outputs_v0.yaml
platform-oracle-stream-sort-context-baseline: ## Sort the context of baseline traffic
	$(SORT) --output-ids-ref $(LISTS)/context_baseline_outputs_v0.yaml
platform-oracle-stream-sort-context-truth: ## Sort the truth context
	$(SORT) --output-ids-ref $(LISTS)/context_truth_outputs_v0.yaml

.PHONY: platform-sr-run-reuse platform-sr-reemit
platform-sr-run-reuse: ## Run the scenario on an existing world up to READY (SR_*)
	$(W) scenario run --wiring $(SR_WIRING) --policy $(SR_POLICY) \
	  --run-equivalence-key $(SR_RUN_EQUIVALENCE_KEY) \
	  $(if $(SR_MANIFEST_FINGERPRINT),--manifest-fingerprint $(SR_MANIFEST_FINGERPRINT)) \
	  $(if $(SR_PARAMETER_HASH),--parameter-hash $(SR_PARAMETER_HASH)) \
	  --seed $(SR_SEED) --scenario-id $(SR_SCENARIO_ID) \
	  --window-start $(SR_WINDOW_START) --window-end $(SR_WINDOW_END) \
	  $(if $(ORACLE_ENGINE_RUN_ROOT),--engine-run-root $(ORACLE_ENGINE_RUN_ROOT))
platform-sr-reemit: ## Publish READY again (SR_REEMIT_RUN_ID, SR_REEMIT_KIND)
	$(W) scenario reemit --wiring $(SR_WIRING) --policy $(SR_POLICY) \
	  --run-id $(SR_REEMIT_RUN_ID) --kind $(SR_REEMIT_KIND)

.PHONY: platform-ig-service platform-wsp-ready-consumer platform-wsp-ready-consumer-once \
        platform-wsp-validate-local
platform-ig-service: ## Serve the ingestion gate (IG_HOST, IG_PORT)
	$(W) gate serve --host $(IG_HOST) --port $(IG_PORT)
platform-wsp-ready-consumer: ## Stream every READY world to the gate, as they come
	$(W) stream ready --max-events-per-output $(WSP_MAX_EVENTS_PER_OUTPUT)
platform-wsp-ready-consumer-once: ## Stream every READY world to the gate once, then stop
	$(W) stream ready --once --max-events-per-output $(WSP_MAX_EVENTS_PER_OUTPUT)
platform-wsp-validate-local: ## Validate streaming: smoke, resume, refusals
	$(W) validate --mode local
