"""Load, faults and figures of serving. The engine is a stand-in of known pace: what is measured is everything else."""
