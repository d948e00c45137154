# Everything a person or CI runs. `make` alone lists it.

# Where `make run` keeps its data, and where it listens.
DATA ?= data
LISTEN ?= 127.0.0.1:8080
# Who `make chat` logs in.
PHONE ?=
SERVER ?= http://$(LISTEN)
ARGS ?=

CARGO ?= cargo
BINARIES = $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := help
.PHONY: help setup run chat build test ground images cluster platform cluster-down e2e faulty faults broken bench autobahn lint fmt check readme crds golden charts

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing on this machine, or name it
	@tests/ground/setup.sh

run: build ## Start the whole platform in one process (DATA=folder LISTEN=address ARGS=flags)
	@exec "$(BINARIES)/standalone" --data "$(DATA)" --listen "$(LISTEN)" $(ARGS)

chat: ## Talk in this terminal (PHONE=+12025550100 SERVER=url ARGS=flags)
	@test -n "$(PHONE)" || { echo "who are you? for example: make chat PHONE=+12025550100" >&2; exit 2; }
	@$(CARGO) build -q --locked --workspace --bins
	@exec "$(BINARIES)/chat" --server "$(SERVER)" --phone "$(PHONE)" $(ARGS)

build: setup ## Build every binary
	@$(CARGO) build --locked --workspace --bins

test: build faulty ground ## Run every test, with nothing else started by hand
	@$(CARGO) test --locked --workspace --exclude tests
	@# Each of these starts a whole system, and some break it: two at a time would wait for each other.
	@$(CARGO) test --locked -p tests -- --test-threads=1
	@tests/tools/charts.sh

ground: setup ## Build or fetch the real systems that the tests use (once, cached)
	@tests/ground/redis.sh build
	@tests/ground/kafka.sh build
	@tests/ground/dynamodb-local.sh build
	@tests/ground/control_plane.sh build

images: ## Pack the services and the operator into target/images (IMAGE_PROFILE=dev: faster, larger)
	@tests/ground/images.sh build
	@if command -v docker >/dev/null && docker info >/dev/null 2>&1; then \
		for image in target/images/*.tar; do docker load -q -i "$$image" || exit 1; done; fi

cluster: ## Start a Kubernetes cluster with the platform on it: Kind where Docker runs, else our own (as root)
	@tests/ground/local.sh platform

platform: ## Start the operator and one MessagingCluster on that cluster
	@tests/ground/local.sh platform

cluster-down: ## End it
	@tests/ground/local.sh down

e2e: setup ## Try the platform on a cluster (KUBECONFIG, else that of make cluster) while people talk on it
	@tests/ground/e2e.sh $(ARGS)

# Only these binaries have failpoints and broken parts; they lie beside the others, which are built anew after them.
FAULTY = gateway ingest fanout chatmgmt

faulty: setup ## Build the services with failpoints and broken parts, for the tests of faults
	@$(CARGO) build --locked --workspace --bins \
		--features "$(foreach service,$(FAULTY),$(service)/failpoints,$(service)/broken)"
	@mkdir -p "$(BINARIES)/faulty"
	@cp $(foreach service,$(FAULTY),"$(BINARIES)/$(service)") "$(BINARIES)/faulty/"
	@$(CARGO) build --locked --workspace --bins

faults: faulty ground ## Run the fault matrix on real systems, three seeds each (ARGS="04 25 --seeds 7 --embedded"); results in target/faults
	@"$(BINARIES)/faults" $(ARGS)

broken: faulty ground ## Run the broken builds, each of which the checker must reject (ARGS="drop_delivery --seeds 7")
	@"$(BINARIES)/faults" --broken $(ARGS)

bench: setup ground ## Measure what messages cost, optimised, on Kafka, Redis and the embedded store (ARGS="one-chat --seconds 20"); JSON in target/bench
	@$(CARGO) build --locked --release --workspace $(addprefix --bin ,gateway ingest fanout chatmgmt provision systems bench)
	@for bench in $(if $(ARGS),"$(ARGS)",deliver one-chat latency); do \
		"$(or $(CARGO_TARGET_DIR),target)/release/bench" $$bench || exit 1; done

autobahn: setup ## Run the Autobahn WebSocket cases against gateway's own socket loop (ARGS="6. 7.")
	@tests/tools/autobahn.sh $(ARGS)

lint: ## Judge the code as CI does
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Format the code
	@$(CARGO) fmt --all

check: lint test ## What CI runs

readme: build ## Record the dialogue in the README anew
	@README_DIALOGUE=record $(CARGO) test --locked -q -p tests --test it readme

golden: ## Write anew what the operator makes of the example specs
	@GOLDEN=write $(CARGO) test --locked -q -p operator --test it golden::

crds: ## Write the definition of MessagingCluster anew
	@mkdir -p crds/generated
	@$(CARGO) run --locked -q -p crds --bin crdgen > crds/generated/.new && mv crds/generated/.new crds/generated/messagingclusters.yaml
	@cp crds/generated/messagingclusters.yaml charts/operator/files/messagingclusters.yaml
	@$(CARGO) run --locked -q -p crds --bin crdgen values > crds/generated/.new && mv crds/generated/.new charts/messaging-cluster/values.schema.json

charts: ## Judge the Helm charts, and what an API server admits of MessagingCluster
	@tests/tools/charts.sh
