"""Runs on a Kubernetes cluster: the same settings and code as here, inside a RayJob (see `jobs.submit`)."""
