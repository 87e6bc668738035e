"""The add-ons stack: Helm releases only, on EKS or on a local kind cluster."""
