##@ Cloud

# ENV names a file in terraform/environments; PROFILE=kind means a local cluster instead of AWS.
VENV ?= .venv
CLOUD = --env '$(ENV)' $(if $(filter kind,$(PROFILE)),--profile kind)
INFRA := $(VENV)/bin/python

.PHONY: doctor
doctor: $(VENV)/.infra ## Check tools, account, quotas, names and kube context before a change (ENV=)
	@$(INFRA) -m ops.doctor --env '$(ENV)'

.PHONY: bootstrap
bootstrap: $(VENV)/.infra ## Make the bucket that holds Terraform's state, once per environment (ENV=)
	@$(INFRA) -m terraform.main bootstrap $(CLOUD)

.PHONY: synth
synth: $(VENV)/.infra ## Write plain Terraform JSON for `terraform` or `tofu` (ENV=, PROFILE=kind)
	@$(INFRA) -m terraform.main synth $(CLOUD)

.PHONY: plan
plan: $(VENV)/.infra ## Show the monthly estimate and what would change (ENV=)
	@$(INFRA) -m terraform.main plan $(CLOUD)

.PHONY: apply
apply: $(VENV)/.infra ## Make or change the cloud, stack by stack, asking before each (ENV=, PROFILE=kind)
	@$(if $(filter kind,$(PROFILE)),,$(INFRA) -m ops.doctor --env '$(ENV)' &&) $(INFRA) -m terraform.main apply $(CLOUD)

.PHONY: crds
crds: $(VENV)/.infra ## Upgrade the CRDs that Helm does not (ENV=, PROFILE=kind)
	@$(INFRA) -m terraform.main crds $(CLOUD)

.PHONY: destroy
destroy: $(VENV)/.infra ## Destroy jobs, load balancers, volumes, add-ons, cloud; list leftovers (ENV=, DELETE_DATA=yes-<env>)
	@$(INFRA) -m ops.teardown --env '$(ENV)' $(if $(CONFIRM),--confirm '$(CONFIRM)') $(if $(DELETE_DATA),--delete-data '$(DELETE_DATA)')

.PHONY: checkov
checkov: $(VENV)/checkov/.installed ## Install checkov in an environment of its own, for tests/terraform

$(VENV)/checkov/.installed: locks/checkov.txt $(VENV)/.uv
	@$(VENV)/bin/uv venv --quiet --python $(INFRA) $(VENV)/checkov
	@$(VENV)/bin/uv pip install --quiet --require-hashes --python $(VENV)/checkov/bin/python --requirement $<
	@touch $@
