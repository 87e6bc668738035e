"""The platform stack: network, EKS, node pools, registry, database, identity, budget. No Kubernetes object lives here."""
