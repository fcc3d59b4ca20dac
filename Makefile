# Herald. `make` or `make help` lists what can be done here.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
export PATH := $(PATH):/usr/sbin:/sbin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/local/go/bin
CARGO ?= cargo
# Tools that the checks use, installed once per machine outside the source tree.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/herald-lab/tools
CARGO_DENY_VERSION := 0.20.2
ACTIONLINT_VERSION := 1.7.12
# Also in tests/src/programs.rs, beside the Helm 3 that the chart is tested with.
HELM_VERSION := 4.3.1
HELM ?= $(TOOLS)/bin/helm-$(HELM_VERSION)
BUILDS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# For static binaries.
MUSL := $(shell uname -m)-unknown-linux-musl
comma := ,
# A test that fails says why; forty frames of how it said so hide that. Panics keep theirs.
export RUST_LIB_BACKTRACE ?= 0
# The binaries that the lab runs.
export HERALD_BIN_DIR ?= $(BUILDS)/release

define say
@printf '\n\033[1m==> %s\033[0m\n' "$(1)"
endef

.PHONY: help
help: ## List these commands
	@echo "Herald: LoadBalancer addresses for Kubernetes on bare metal"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo; echo "demo, lab, cluster, test, test-cluster and bench need root on Linux, Rust (rustup) and Go; the rest they install or name."

.PHONY: demo
demo: deps binaries ## See it work: a real control plane, three nodes, a client, a power cut
	@$(CARGO) build --quiet --release --package herald-lab --bin demo
	@exec $(HERALD_BIN_DIR)/demo

.PHONY: lab
lab: deps binaries ## Start the demo's cluster and keep it until Enter: for trying things by hand
	@$(CARGO) build --quiet --release --package herald-lab --bin lab
	@exec $(HERALD_BIN_DIR)/lab up

.PHONY: cluster
# Images for this machine alone: the other architecture's are of no use to its nodes.
cluster test-cluster: ARCH := $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
cluster: cluster-deps image pod ## Start three nodes with real kubelets and keep them: try the README's commands by hand
	@$(CARGO) build --quiet --release --package herald-lab --bin lab
	@exec $(BUILDS)/release/lab cluster

.PHONY: test
test: deps lint generated licences cores ## Format, lints, unit, property, simulation, real API and LAN (CI runs this, test-cluster and demo)
	$(call say,Tests: unit and property tests, the simulator, then the real control plane and LAN)
	$(CARGO) build --workspace --all-targets
	HERALD_BIN_DIR=$(BUILDS)/debug $(CARGO) test --workspace

.PHONY: test-cluster
test-cluster: cluster-deps image pod ## Test images and chart on three real kubelets: install, upgrade, faults
	$(call say,Tests on a full cluster: kubelet$(comma) containerd$(comma) helm)
	$(CARGO) test --package herald-lab --test 'cluster_*' --test cleanup -- --ignored --nocapture --test-threads=1

.PHONY: unit
unit: ## Only the tests that need neither root nor a control plane
	$(CARGO) test --workspace --exclude herald-lab --exclude herald-net

.PHONY: sim
sim: ## Run the protocol simulator: SEEDS of each class (default 4000, 176,000 in all)
	$(CARGO) run --release --package herald-sim -- --seeds $(or $(SEEDS),4000)

.PHONY: sim-control
sim-control: ## Run the simulator of controllers and API server: SEEDS in all (default 100,000)
	$(CARGO) run --release --package herald-controlsim -- --total $(or $(SEEDS),100000)

.PHONY: bench
bench: bench-deps binaries ## Measure speed and memory beside the rivals (more than 15 minutes); docs/benchmarks.md has recorded results
	$(CARGO) bench --package herald-ipam
	@$(CARGO) build --quiet --release --package herald-lab --bin bench
	$(HERALD_BIN_DIR)/bench all

.PHONY: bench-scale
# The programs as they are shipped: static, with their own allocator. PROFILE=release for a quicker build.
bench-scale: ARCH := $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
bench-scale: deps image ## Measure 1,000 and 10,000 Services: time, API writes, memory (10 minutes beside the build)
	@$(CARGO) build --quiet --release --package herald-lab --bin bench
	HERALD_BIN_DIR=$(BUILDS)/$(MUSL)/$(or $(PROFILE),dist) $(BUILDS)/release/bench scale $(addprefix --services ,$(SERVICES))

.PHONY: fuzz
fuzz: ## Fuzz every decoder (SECONDS_EACH=600); needs a nightly toolchain and cargo-fuzz
	hack/fuzz.sh $(or $(SECONDS_EACH),600)

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: lint
lint: ## Check format and lints
	$(call say,Format and lints)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- --deny warnings

.PHONY: lint-workflows
lint-workflows: ## Check the workflows of CI and release
	$(call say,Workflows)
	go run github.com/rhysd/actionlint/cmd/actionlint@v$(ACTIONLINT_VERSION)

.PHONY: crds
crds: ## Write the CRD manifests from the Rust types, and the chart's schema of them
	$(CARGO) xtask crds

.PHONY: manifests
manifests: $(HELM) ## Write the plain manifests from the chart
	HELM=$(HELM) $(CARGO) xtask manifests

.PHONY: generated
generated: $(HELM)
	$(call say,Generated files are up to date)
	$(CARGO) xtask crds --check
	HELM=$(HELM) $(CARGO) xtask manifests --check
	$(CARGO) xtask reasons --check
	$(CARGO) xtask metrics --check

.PHONY: cores
cores:
	$(call say,The cores are free of I/O)
	$(CARGO) xtask cores

.PHONY: licences
licences: $(TOOLS)/bin/cargo-deny-$(CARGO_DENY_VERSION)
	$(call say,Licences and dependencies)
	$< --log-level error check bans licenses sources

.PHONY: advisories
advisories: $(TOOLS)/bin/cargo-deny-$(CARGO_DENY_VERSION) ## Check dependencies for known vulnerabilities (fetches the RustSec database)
	$< check advisories

$(TOOLS)/bin/cargo-deny-$(CARGO_DENY_VERSION):
	$(call say,Building cargo-deny $(CARGO_DENY_VERSION), once per machine (about four minutes))
	$(CARGO) install --quiet --locked --root $(TOOLS) cargo-deny@$(CARGO_DENY_VERSION)
	@mv $(TOOLS)/bin/cargo-deny $@

$(TOOLS)/bin/helm-$(HELM_VERSION):
	$(call say,Building helm $(HELM_VERSION) once per machine (about two minutes))
	GOBIN=$(TOOLS)/helm-partial CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" helm.sh/helm/v4/cmd/helm@v$(HELM_VERSION)
	@mkdir -p $(@D) && mv $(TOOLS)/helm-partial/helm $@

.PHONY: binaries
binaries:
	$(call say,Building herald-controller and herald-speaker)
	$(CARGO) build --release --package herald-controller --package herald-speaker

.PHONY: pod
pod: # The lab's own program for pods, static.
	@rustup target add --toolchain "$$(rustup show active-toolchain | cut -d ' ' -f 1)" $(MUSL) >/dev/null 2>&1 || true
	$(CARGO) build --release --package herald-pod --target $(MUSL)

# One C compiler for the static binaries of both architectures; hack/zig.txt says which and why.
ZIG_VERSION := $(shell sed -n 's/^ziglang==\([0-9.]*\).*/\1/p' hack/zig.txt)
export ZIG ?= $(TOOLS)/ziglang-$(ZIG_VERSION)/ziglang/zig

.PHONY: image
image: $(ZIG) ## Build the images into dist/images: both architectures, or ARCH=amd64; PROFILE=dev for a quick try
	$(call say,Images)
	@! command -v rustup >/dev/null || rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
	$(CARGO) image $(addprefix --arch ,$(ARCH)) $(addprefix --profile ,$(PROFILE))

.PHONY: image-smoke
image-smoke: ## Take the images apart and run what is in them, arm64 under qemu-user-static
	$(call say,The programs in the images start)
	hack/image-smoke.sh $(ARCH)

.PHONY: image-reproducible
image-reproducible: $(ZIG) ## Build the images of this commit twice and compare them byte by byte (ARCH=amd64)
	$(call say,Two builds of the images are the same)
	hack/image-reproducible.sh $(or $(ARCH),amd64)

# Not made of hack/zig.txt, which is newer in every new checkout: its version is in the directory's name.
$(TOOLS)/ziglang-$(ZIG_VERSION)/ziglang/zig:
	@python3 -m pip --version >/dev/null 2>&1 || { echo "missing: pip, which brings the compiler of the images' C parts (Debian: apt-get install python3-pip)" >&2; exit 1; }
	$(call say,Getting zig $(ZIG_VERSION) once per machine (98 MB))
	rm -rf $(TOOLS)/ziglang-$(ZIG_VERSION) $(TOOLS)/ziglang-partial
	PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--target $(TOOLS)/ziglang-partial --requirement hack/zig.txt
	@mv $(TOOLS)/ziglang-partial $(TOOLS)/ziglang-$(ZIG_VERSION)

.PHONY: deps bench-deps cluster-deps
deps:
	@hack/deps.sh
bench-deps:
	@hack/deps.sh bench
cluster-deps:
	@hack/deps.sh cluster
