# Two commands do all the set-up: `make demo` and `make test`. They need Rust (rustup picks the toolchain),
# Python 3 with venv (for Envoy, unless one of 1.38 or newer is on PATH), and make; `make test` also kubectl, kustomize or Go
# (to render the manifests), and nginx (unpacked from the system's packages on Debian and Ubuntu).

# Incremental builds pay for an editor; here they only fill the disk.
export CARGO_INCREMENTAL ?= 0

.PHONY: help demo test lint soak soak-long startup load bench clean

help: ## says what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## runs the control plane, an Envoy and eight small games on loopback; ARGS="--servers 20" for more
	@ENVOY="$$(envoy/get-envoy)" && export ENVOY && cargo build --quiet --bin tidegate && exec target/debug/tidegate demo $(ARGS)

test: ## runs every test, with a real Envoy
	@envoy/get-envoy >/dev/null
	@manifests/get-kubectl >/dev/null
	@loadtest/get-nginx >/dev/null
	cargo test --workspace --no-fail-fast --lib --bins --tests

lint: ## checks format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

soak: ## two minutes of churn and crashes under 2,000 players, in a release build: nobody may fall; ARGS="--players 500" for less
	cargo build --quiet --release --workspace
	@envoy/get-envoy >/dev/null
	@mkdir -p loadtest/results
	target/release/loadtest soak --self-test
	target/release/loadtest soak --json loadtest/results/soak.json --html loadtest/results/soak.html $(ARGS)

soak-long: ## the same for an hour
	$(MAKE) soak ARGS="--churn 1h $(ARGS)"

startup: ## measures start-up with 10,000 servers, in a release build
	cargo build --quiet --release --workspace
	target/release/loadtest startup $(ARGS)

load: ## measures changes, fan-out and a cluster in a release build, for half an hour; ARGS="delta --sizes 1000" for a part
	cargo build --quiet --release --workspace
ifeq ($(strip $(ARGS)),)
	@envoy/get-envoy >/dev/null
	@mkdir -p loadtest/results
	target/release/loadtest delta --json loadtest/results/delta.json --svg loadtest/results
	target/release/loadtest fanout --json loadtest/results/fanout.json --svg loadtest/results
	target/release/loadtest kube --bursts 1000,10000 --write-back --json loadtest/results/kube.json
else
	target/release/loadtest $(ARGS)
endif

bench: ## measures the core by its parts, with criterion; ARGS="-- --quick" for a rough look
	cargo bench --bench core $(ARGS)

clean: ## removes what was built, and the programs that were installed
	cargo clean
	rm -rf .envoy .tools
