"""Raw Korean text to a training set.

    files ──reading──▶ raw rows ──steps──▶ clean rows, signatures ──duplicates──▶ what stays ──▶ train/, held_out/

`pipeline.prepare` runs the stages in `stages.py` over shards, here or on Ray's workers. README.md says why it is so.
"""
