"""Backups: what the platform cannot rebuild, content-addressed, data first and manifest last."""
