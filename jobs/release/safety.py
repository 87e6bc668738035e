"""What must not stand in an answer, found by rule: personal data, and tokens of the chat template.

Empty, endless and foreign-language answers are matters of quality; the benchmark `prompts` measures them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from jobs.corpus.cleaning_settings import ALL_PERSONAL_DATA
from jobs.corpus.steps.personal.masking import mask
from jobs.release.gate import Safety

PERSONAL, TEMPLATE = "personal data", "tokens of the chat template"


def inspect(answers: Iterable[tuple[str, str]], special_tokens: Sequence[str]) -> Safety:
    """Look through (prompt, answer) pairs. Personal data that the prompt brought along is not counted."""
    kinds: Counter[str] = Counter({PERSONAL: 0, TEMPLATE: 0})
    seen = unsafe = 0
    for prompt, answer in answers:
        found = {
            PERSONAL: _personal(answer) > _personal(prompt),
            TEMPLATE: any(token in answer for token in special_tokens),
        }
        kinds.update({kind: int(there) for kind, there in found.items()})
        seen += 1
        unsafe += any(found.values())
    return Safety(seen, unsafe, dict(kinds))


def _personal(text: str) -> int:
    return sum(mask(text, ALL_PERSONAL_DATA)[1].values())
