"""Personal data: found by layout, confirmed by what is known about the number, replaced by a fixed token.

A bare pattern takes dates, prices and order numbers. Here a candidate must also hold a date of birth, an area code, an
issuer's prefix, a check digit, or stand behind the words that announce it; and it is left alone where its own label
says that it is something else (주문번호: 2405-…). Nothing of the value is kept, not even its hash.
"""

from jobs.corpus.steps.personal.masking import mask

__all__ = ["mask"]
