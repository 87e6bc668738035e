"""Which models there are, where each comes from, and which one serves.

settings.py   the section `registry`
versions.py   MLflow's registered model: versions with their lineage, the aliases champion and challenger
history.py    the promotion log, append-only, beside the aliases, which have no history
promotion.py  promote and roll back: the one code path, with compare-and-set
"""
