##@ Images

# IMAGE is one of job-cpu, job-gpu, ops, gateway (default: all). BASE_IMAGE replaces versions.yaml's images.python.
IMAGE ?=
BASE_IMAGE ?=
REGISTRY ?=
TAG ?=
BUILDER ?=
IMAGE_OPTIONS = $(if $(IMAGE),--image '$(IMAGE)') $(if $(BASE_IMAGE),--base-image '$(BASE_IMAGE)') \
  $(if $(REGISTRY),--registry '$(REGISTRY)') $(if $(TAG),--tag '$(TAG)') $(if $(BUILDER),--builder '$(BUILDER)')

.PHONY: images
images: $(VENV)/.infra ## Build the images (IMAGE=job-cpu|job-gpu|ops|gateway, REGISTRY=, TAG=, BASE_IMAGE=, BUILDER=docker|podman|buildah)
	@$(VENV)/bin/python -m images.build $(IMAGE_OPTIONS)

.PHONY: push
push: $(VENV)/.infra ## Build the images and send them to REGISTRY=
	@$(VENV)/bin/python -m images.build $(IMAGE_OPTIONS) --push

.PHONY: base-image
base-image: ## Make localhost/haetsal/base without a registry: Debian and this machine's Python (root, debootstrap, buildah)
	@images/local-base.sh '$(PYTHON)' localhost/haetsal/base:local

.PHONY: test-images
test-images: $(VENV)/.dev $(VENV)/.infra ## Build all images with buildah and run what is in them; needs root (ARGS="-k cpu")
	@$(VENV)/bin/python -m pytest -m images tests/images $(ARGS)
