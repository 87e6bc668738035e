"""The training loop and its parts. `jobs.train` is the command; `loop.py` is what every worker runs."""
