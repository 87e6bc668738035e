"""The settings of the text steps of corpus preparation. What each rule measures and where its default comes from is
said in `jobs/corpus/steps/quality.py`.

They stand outside the package `steps` so that reading settings does not load the steps.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jobs.section import Section

PersonalData = Literal[
    "resident_number",
    "foreigner_number",
    "driver_licence",
    "passport",
    "phone",
    "email",
    "card",
    "account",
    "ip_address",
]
ALL_PERSONAL_DATA: tuple[PersonalData, ...] = (
    "resident_number",
    "foreigner_number",
    "driver_licence",
    "passport",
    "phone",
    "email",
    "card",
    "account",
    "ip_address",
)


class QualitySettings(Section):
    """Which texts are dropped. Shares are between 0 and 1; the code in fenced blocks does not count."""

    min_characters: int = Field(50, ge=0)
    """Shortest document, whitespace not counted. Conversations may be shorter: a good answer can be one word."""
    max_characters: int = Field(100_000, ge=1)
    """Longest text, whitespace not counted."""
    min_mean_word_length: float = Field(2.0, ge=0)
    """Characters per word (eojeol)."""
    max_mean_word_length: float = Field(10.0, gt=0)
    """Characters per word (eojeol)."""
    max_symbols_per_word: float = Field(0.1, ge=0)
    """Hash signs per word, and ellipses per word."""
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    """Share of the lines that begin with a bullet."""
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    """Share of the lines that end with an ellipsis."""
    min_hangul: float = Field(0.25, ge=0, le=1)
    """Share of Hangul among the letters; of a conversation, in its most Korean turn."""
    max_hanja: float = Field(0.3, ge=0, le=1)
    """Share of Hanja among the letters."""
    max_latin: float = Field(0.7, ge=0, le=1)
    """Share of Latin among the letters."""
    max_broken: float = Field(0.001, ge=0, le=1)
    """Share of replacement characters (U+FFFD), which a wrong decoding leaves behind, among all but spaces."""
    max_repeated_lines: float = Field(0.3, ge=0, le=1)
    """Share of the lines that repeat an earlier one."""
    max_repeated_line_characters: float = Field(0.2, ge=0, le=1)
    """Share of the characters that stand in such lines."""
    repeated_word_runs: bool = True
    """Drop texts in which the same few words come again and again."""

    @model_validator(mode="after")
    def _ordered(self) -> QualitySettings:
        if self.min_characters > self.max_characters:
            raise ValueError("corpus.cleaning.quality.min_characters is above max_characters: no text could pass")
        if self.min_mean_word_length > self.max_mean_word_length:
            raise ValueError("corpus.cleaning.quality.min_mean_word_length is above max_mean_word_length")
        return self


class CleaningSettings(Section):
    """The steps that each text goes through, in this order. What no UTF-8 can hold (lone surrogates) always goes."""

    invisible: bool = True
    """Remove control characters and characters of no width, except where they join an emoji."""
    compose: bool = True
    """Compose Hangul and the rest (Unicode NFC); full-width Latin and half-width Hangul take their usual form."""
    html: bool = True
    """Resolve entities, remove comments, scripts and tags. Code between backticks stays as it is."""
    wiki: bool = True
    """Remove what MediaWiki's pages are written with: templates, link brackets, quotes for bold, headings' signs."""
    markdown_links: bool = True
    """Reduce Markdown links and images to their words. Headings, lists, emphasis, tables and code stay: models write
    them, and read well without the page."""
    whitespace: bool = True
    """One space between words, at most one empty line between paragraphs. Fenced code keeps its own."""
    max_repeated_jamo: int = Field(2, ge=0, le=100)
    """Lone jamo in a row that are kept (ㅋㅋㅋㅋ becomes ㅋㅋ); 0 keeps all. Two is what EleutherAI's dps keeps."""
    mask: tuple[PersonalData, ...] = ALL_PERSONAL_DATA
    """Kinds of personal data that are replaced by a fixed token per kind. Nothing of the value is kept."""
    quality: QualitySettings = QualitySettings()
    """Which texts are dropped."""
