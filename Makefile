# `make` or `make help` lists what there is. Slow work is cached in ~/.cache/finetune-operator (or FINETUNE_CACHE).
# CLUSTER=current uses the current kubeconfig context instead of the local cluster (asks; YES=1 answers).

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin
# For tools and tests; the cluster step itself must see the user's own KUBECONFIG.
ON_CLUSTER := KUBECONFIG=$(CURDIR)/.local/kubeconfig PATH=$(CURDIR)/.local/bin:$$PATH
# Where it is set, every process compiles torch and its friends anew: 28 s instead of 17 s before a trainer begins.
unexport PYTHONDONTWRITEBYTECODE

# Two processes that take whole files, whose tests share a namespace and what is in it; conftest.py says which begin.
# Not more: each keeps several pods busy, which two cores have to run. What takes longest is listed.
BY_FILE := --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=20 --durations-min=10

.DEFAULT_GOAL := help
# Later targets build on what earlier ones leave behind.
.NOTPARALLEL:
.PHONY: help prepare venv cluster cluster-down cluster-status images install kueue demo bench-demo bench-operator \
	bench-batches bench-dataset bench-evaluation bench-serving bench-trainer test test-unit test-trainer \
	test-conformance test-cluster test-faults test-faults-subset check docs generate screenshots release release-dry-run

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

prepare:
	@$(PYTHON) -m tools.prepare

venv: ## the development environment .venv, from uv.lock
	@$(PYTHON) -m tools.venv

cluster: ## start, repair or re-use the local Kubernetes cluster; kubeconfig at .local/kubeconfig
ifeq ($(CLUSTER),current)
	@$(PYTHON) -m tools.context
else
	@$(PYTHON) -m tools.cluster up
endif

cluster-down: ## remove the local cluster; cached programs and images stay
	@$(PYTHON) -m tools.cluster down

cluster-status: ## one line per process of the local cluster
	@$(PYTHON) -m tools.cluster status

images: cluster ## build the operator and trainer images and load them into the local cluster
	@$(PYTHON) -m tools.images

install: cluster images ## install the chart with those images
	@$(PYTHON) -m tools.install

kueue: cluster ## install Kueue, built from source, on the local cluster
	@$(PYTHON) -m tools.kueue

demo: prepare cluster images install ## three YAMLs to a served adapter, with a table of before and after
	@$(ON_CLUSTER) $(VENV)/python -m tools.demo

bench-demo: demo ## the demo's accuracy over three seeds
	@$(ON_CLUSTER) $(VENV)/python -m tools.demo.bench

bench-operator: venv ## the operator at scale: 1,000 jobs at once, 10,000 at rest, beside a bare client
	@$(VENV)/python -m tools.bench.operator

bench-dataset: venv ## a dataset pod on up to a million rows, beside text-dedup: rows per second, memory, recall
	@$(VENV)/python -m tools.bench.dataset

bench-trainer: venv ## our trainer against TRL on CPU; with a GPU an 8 B model, with the demo up the time to the first step
	@$(ON_CLUSTER) $(VENV)/python -W ignore -m tools.bench.trainer

bench-evaluation: venv ## evaluation on CPU: answers in batches and one by one, 200 rows on four systems, baselines recalled
	@$(VENV)/python -W ignore -m tools.bench.evaluation

bench-batches: venv ## a batch whose prompts begin alike: what they begin with read once, and for each row
	@$(VENV)/python -W ignore -m tools.bench.batches

bench-serving: venv ## the Transformers engine beside others: speed, latency, memory; on the local cluster the update of an adapter
	@$(ON_CLUSTER) $(VENV)/python -W ignore -m tools.bench.serving $(MODELS)

test: prepare test-unit test-faults-subset test-trainer test-cluster ## all tests: what CI runs, with `make check`

test-unit: venv ## tests without a cluster, a few minutes
	@$(PYTHON) -m tools.binaries versitygw
	$(VENV)/python -m pytest tests/unit --numprocesses=auto --maxprocesses=4

test-faults: venv ## every fault between operator and API server, on a control plane of its own
	@$(PYTHON) -m tools.binaries kubernetes
	$(VENV)/python -m pytest tests/faults --faults=all

test-faults-subset: venv ## a seeded subset of them: SEED=n chooses another
	@$(PYTHON) -m tools.binaries kubernetes
	$(VENV)/python -m pytest tests/faults --faults=subset --faults-seed=$(or $(SEED),0)

test-conformance: venv ## clients against an engine: ours; ENGINE=vllm, or ENGINE=tgi|vllm with ENGINE_URL, another
	$(VENV)/python -m pytest tests/conformance

test-trainer: venv ## tests of the training code on CPU, and the conformance of our engine
	@$(PYTHON) -m tools.binaries versitygw
	-@test -d .venv/gguf-converter || sh trainer-image/gguf-converter.sh $(PYTHON) .venv/gguf-converter
	env -u ENGINE -u ENGINE_URL $(VENV)/python -m pytest tests/trainer tests/conformance $(BY_FILE)

test-cluster: venv cluster images install kueue ## tests of the chart, and on the cluster with the chart installed
	@$(PYTHON) -m tools.binaries versitygw
	@$(PYTHON) -m tools.packages prometheus
	$(ON_CLUSTER) $(VENV)/python -m pytest tests/chart tests/cluster $(BY_FILE) -m "not exclusive"
	$(ON_CLUSTER) $(VENV)/python -m pytest tests/cluster -m exclusive

check: venv ## format, lint, types, import rules, the documentation site, generated files
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	@$(MAKE) --no-print-directory docs generate
	git diff --exit-code -- crds charts docs/reference gitops operator/src/finetune_cli/crds

release-dry-run: venv ## a version in dist/ but for the images: chart, CRDs, bills of materials, licences, notes
	$(VENV)/python -m tools.release

release: venv ## the same with images, by digest in the chart: REGISTRY=registry.example.com/team, PUSH=1 pushes
	$(VENV)/python -m tools.release --registry=$(or $(REGISTRY),$(error set REGISTRY)) $(if $(PUSH),--push)

# Not --quiet: with it, --strict lets every warning pass.
docs: venv ## the documentation site in .local/site; a dead link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict

generate: venv ## everything that is made from code: CRDs, reference pages, the patch for Argo CD
	$(VENV)/python -m finetune_operator.api.crd crds charts/finetune-operator/files/crds operator/src/finetune_cli/crds
	$(VENV)/python -m finetune_operator.api.reference docs/reference
	$(VENV)/python -m tools.metrics_page docs/reference/metrics.md
	$(VENV)/python -m tools.dashboard charts/finetune-operator/files/dashboard.json
	$(VENV)/python -m tools.cli_page docs/reference/cli.md
	$(VENV)/python -m tools.screenshots docs/reference/cli
	$(VENV)/python -m tools.argocd

screenshots: venv ## pictures of `kubectl finetune` for the documentation; `make generate` makes them, too
	$(VENV)/python -m tools.screenshots docs/reference/cli
