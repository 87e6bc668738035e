"""For all tests, before torch is imported."""

import os

# Tiny models gain nothing from threads, and threads that wait for each other on a busy machine cost ten times as much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
