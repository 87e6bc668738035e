"""Benchmarks: each prints the figure that the README quotes, next to its bar."""
