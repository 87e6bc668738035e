"""All steps in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from jobs.corpus.cleaning_settings import ALL_PERSONAL_DATA, CleaningSettings
from jobs.corpus.steps import characters, layout, markup, personal, quality

_PASSES = 8


class Cleaned(NamedTuple):
    """A text that passed. `masked` counts replaced personal data by kind, `changed` names the steps that changed it."""

    text: str
    masked: dict[str, int]
    changed: tuple[str, ...] = ()


class Dropped(NamedTuple):
    """A text that did not. `rule` is one of `Cleaner.rules`, `detail` says what was measured against which bound."""

    rule: str
    detail: str


class Cleaner:
    """Cleans and judges one text after the other. Deterministic, picklable, and what it returns it would return
    unchanged: the steps are repeated until nothing changes, as removing one thing may bring another to light."""

    rules: tuple[str, ...] = ("unsettled_markup", *quality.RULES)
    """Names of all reasons for dropping a text, in the order they are asked for."""

    def __init__(self, settings: CleaningSettings) -> None:
        self._settings = settings
        wanted: tuple[tuple[str, Callable[[str], str], bool], ...] = (
            ("invisible", characters.without_invisible, settings.invisible),
            ("compose", characters.composed, settings.compose),
            ("html", markup.without_html, settings.html),
            ("wiki", markup.without_wiki, settings.wiki),
            ("markdown_links", markup.without_links, settings.markdown_links),
            ("whitespace", layout.single_spaced, settings.whitespace),
            ("jamo", partial(layout.squeezed, longest=settings.max_repeated_jamo), settings.max_repeated_jamo > 0),
        )
        self._steps = tuple((name, step) for name, step, enabled in wanted if enabled)

    def __call__(self, text: str) -> Cleaned | Dropped:
        """Clean one text that stands by itself. Never raises, whatever the text."""
        cleaned = self._clean(text)
        if isinstance(cleaned, Dropped):
            return cleaned
        verdict = quality.judge(cleaned.text, self._settings.quality)
        return Dropped(*verdict) if verdict else cleaned

    def conversation(self, turns: Sequence[str]) -> list[Cleaned] | Dropped:
        """Clean each turn and judge them together (see `quality.judge_conversation`). Never raises."""
        if not turns:
            return Dropped("too_short", "a conversation without turns")
        result = []
        for turn in turns:
            cleaned = self._clean(turn)
            if isinstance(cleaned, Dropped):
                return cleaned
            if not cleaned.text:
                return Dropped("too_short", "a turn of the conversation is empty")
            result.append(cleaned)
        verdict = quality.judge_conversation([cleaned.text for cleaned in result], self._settings.quality)
        return Dropped(*verdict) if verdict else result

    def _clean(self, text: str) -> Cleaned | Dropped:
        masked: Counter[str] = Counter()
        changed: dict[str, None] = {}
        text = characters.encodable(text)
        settled = None
        for _ in range(_PASSES):
            for name, step in self._steps:
                after = step(text)
                if after != text:
                    changed[name] = None
                    text = after
            if text == settled:
                return Cleaned(text, dict(masked), tuple(changed))
            text, found = personal.mask(text, self._settings.mask)
            settled = None if found else text
            masked.update(found)
        return Dropped("unsettled_markup", f"markup nested more than {_PASSES} levels deep")


def mask(text: str) -> str:
    """The text with all kinds of personal data masked, whatever the settings: for what people get to see."""
    return personal.mask(characters.encodable(text), ALL_PERSONAL_DATA)[0]
