"""Markup: whole HTML documents to text, and what is left of HTML, wiki pages and Markdown links in text.

What stands between backticks is code and stays: a text that explains `<div>` needs it.
"""

from __future__ import annotations

import html
import re

from selectolax.lexbor import LexborHTMLParser

from jobs.corpus.steps.characters import encodable
from jobs.corpus.steps.code import outside_code
from jobs.corpus.steps.personal.tokens import TOKENS

_NO_TEXT = (
    "head, script, style, noscript, template, iframe, object, svg, canvas, nav, footer, aside, form, button, dialog"
)
_PARAGRAPHS = (
    "p, h1, h2, h3, h4, h5, h6, blockquote, ul, ol, dl, table, figure, section, article, main, header, hr, pre"
)
_LINES = "div, li, tr, dt, dd, figcaption, caption, address, details, summary"
_PARAGRAPH, _LINE, _SPACE = "\x1c", "\x1e", "\x1f"
"""Stand for an empty line, a new line and a space that counts while HTML's own whitespace is folded."""
_RESERVED = str.maketrans("", "", _PARAGRAPH + _LINE + _SPACE)
_FOLDED = re.compile(r"[ \t\r\n\f]+")
_BREAKS = re.compile(f" ?([{_PARAGRAPH}{_LINE}][{_PARAGRAPH}{_LINE} ]*)")


def html_to_text(document: str) -> str:
    """The readable text of an HTML document or fragment: paragraphs parted by an empty line, list items and table rows
    on lines of their own, `<pre>` as a fenced block. Scripts, styles, navigation, forms and side matter are left out.
    """
    tree = LexborHTMLParser(encodable(document).translate(_RESERVED))
    root = tree.body or tree.root
    if root is None:
        return ""
    for node in tree.css(_NO_TEXT):
        node.decompose()
    for node in tree.css("pre"):
        kept = node.text().strip("\n").replace(" ", _SPACE).replace("\n", _LINE)
        node.replace_with(f"{_PARAGRAPH}```{_LINE}{kept}{_LINE}```{_PARAGRAPH}")
    for selector, mark in ((_PARAGRAPHS, _PARAGRAPH), (_LINES, _LINE)):
        for node in root.css(selector):
            node.insert_before(mark)
            node.insert_after(mark)
    for node in root.css("br"):
        node.replace_with(_LINE)
    for node in root.css("li"):
        node.insert_before("- ")
    for node in root.css("td, th"):
        node.insert_after(" ")
    text = _BREAKS.sub(_break, _FOLDED.sub(" ", root.text()))
    return text.replace(_SPACE, " ").strip()


def _break(match: re.Match[str]) -> str:
    return "\n\n" if _PARAGRAPH in match[1] else "\n"


_ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAG_NAMES = (
    "a abbr address article aside b big blockquote body br button caption center cite code col colgroup dd del details "
    "dfn div dl dt em embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe "
    "img input ins kbd label legend li link main mark meta nav nobr noscript object ol option p param pre q s samp "
    "section select small source span strike strong sub summary sup svg table tbody td textarea tfoot th thead time "
    "title tr tt u ul var video wbr"
)
_TAG = re.compile(rf"<(/?)({'|'.join(_TAG_NAMES.split())})(?:[\s/][^<>]*)?>", re.IGNORECASE)
_DOCTYPE = re.compile(r"<!DOCTYPE[^<>]*>", re.IGNORECASE)
_SCRIPT = (
    re.compile(r"<(?:script|style)\b[^<>]*>", re.IGNORECASE),
    re.compile(r"</(?:script|style)\s*>", re.IGNORECASE),
)
_COMMENT = (re.compile("<!--"), re.compile("-->"))
_NEW_LINE = " address article blockquote br dd div dl dt figure h1 h2 h3 h4 h5 h6 hr li ol p pre section table tr ul "


def without_html(text: str) -> str:
    """The text without what HTML leaves behind: entities, comments, scripts and tags that HTML knows.

    `<` before anything else (x < y, List<String>, <홍길동전>) is text. Only entities with their semicolon are resolved,
    as `?a=1&copy=2` is none.
    """
    return outside_code(text, _without_html) if "<" in text or "&" in text else text


def _without_html(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(f"&{match[1]};"), text)
    if "<" in text:
        text = _without_blocks(text, *_COMMENT)
        text = _without_blocks(text, *_SCRIPT)
        text = _TAG.sub(_instead_of_tag, _DOCTYPE.sub("", text))
    return text


def _instead_of_tag(match: re.Match[str]) -> str:
    name = match[2].lower()
    return "\n" if f" {name} " in _NEW_LINE else " " if name in ("td", "th") else ""


def _without_blocks(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Cut from each opening to the next closing; linear in time where a lazy pattern is quadratic."""
    kept, position = [], 0
    while (start := opening.search(text, position)) and (end := closing.search(text, start.end())):
        kept.append(text[position : start.start()])
        position = end.end()
    return "".join([*kept, text[position:]])


_WIKI_LEVELS = 8
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_WIKI_TABLE = (re.compile(r"^\{\|", re.MULTILINE), re.compile(r"^\|\}", re.MULTILINE))
_WIKI_REFERENCE = (re.compile(r"<ref\b[^<>/]*>", re.IGNORECASE), re.compile(r"</ref\s*>", re.IGNORECASE))
_WIKI_LINK = re.compile(r"\[\[([^\W\d][^\[\]|\n]*)(?:\|([^\[\]\n]*))?\]\]")
_WIKI_FILE = re.compile(r"(?:파일|그림|분류|file|image|category)\s*:", re.IGNORECASE)
_WIKI_QUOTES = re.compile(r"'{2,5}")
_WIKI_HEADING = re.compile(r"^(={2,6})[ \t]*([^=\n]+?)[ \t]*\1[ \t]*$", re.MULTILINE)


def without_wiki(text: str) -> str:
    """The words of text in MediaWiki's markup. Without a link or bold print in it a text is taken for something else,
    as templates look like Jinja's."""
    return outside_code(text, _without_wiki) if "'''" in text or _WIKI_LINK.search(text) else text


def _without_wiki(text: str) -> str:
    for _ in range(_WIKI_LEVELS):  # innermost first
        text, found = _TEMPLATE.subn("", text)
        if not found:
            break
    text = _without_blocks(text, *_WIKI_TABLE)
    text = _without_blocks(text, *_WIKI_REFERENCE)
    text = _WIKI_LINK.sub(_link_words, text)
    if "'''" in text:
        text = _WIKI_QUOTES.sub("", text)
    return _WIKI_HEADING.sub(r"\2", text)


def _link_words(match: re.Match[str]) -> str:
    if match[0][1:-1] in TOKENS:
        return match[0]
    if _WIKI_FILE.match(match[1]):
        return ""
    return match[2] or match[1]


_TARGET = r"""\((?:https?://|www\.|mailto:|/|\.{1,2}/|#)[^()\s]*(?:\s+["'][^"'\n]*["'])?\)"""
_LINK = re.compile(rf"!?(\[[^\[\]\n]*\]){_TARGET}")
_DEFINITION = re.compile(r"^\[[^\[\]\n]+\]:[ \t]*https?://\S+[^\n]*$", re.MULTILINE)


def without_links(text: str) -> str:
    """Markdown with links and images reduced to their words, and without the definitions that reference links use."""
    return outside_code(text, _without_links) if "](" in text or "]:" in text else text


def _without_links(text: str) -> str:
    return _DEFINITION.sub("", _LINK.sub(lambda match: match[1] if match[1] in TOKENS else match[1][1:-1], text))
