"""Hyper-parameter search: Optuna draws, Ray Tune runs the trials side by side, ASHA stops the hopeless ones."""
