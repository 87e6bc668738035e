"""Restore: verify everything, plan as a pure function of backup and cluster, then write what the plan says."""
