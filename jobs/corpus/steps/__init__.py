"""The text steps of corpus preparation: pure functions, put in order by `Cleaner`.

characters ─▶ markup ─▶ whitespace ─▶ jamo ─▶ personal data ─▶ quality
"""

from jobs.corpus.steps.cleaner import Cleaned, Cleaner, Dropped, mask

__all__ = ["Cleaned", "Cleaner", "Dropped", "mask"]
