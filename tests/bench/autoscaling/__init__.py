"""How many nodes a week of work takes under a policy: workload, model, replay through Ray's autoscaler, tables."""
