"""Load, faults and figures of serving. The engine is a stand-in with a known pace: what is measured is everything else."""
