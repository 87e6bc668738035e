"""The platform stack: network, EKS, node pools, registry, database, identity, budget; no Kubernetes object."""
