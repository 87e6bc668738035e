"""Characters: one form for each, none that nobody sees.

NFC and not NFKC: NFC joins what is canonically the same (conjoining jamo that macOS writes, the Hanja that KS X 1001
holds twice). NFKC would also change what the writer meant: ㅋ becomes a conjoining jamo and melts into a following
vowel, x² becomes x2, ① 1, ㎏ kg, the filler U+3164 an invisible jamo. The two compatibility forms that are mere
accidents of old input methods are replaced by table instead: full-width ASCII, and half-width Hangul, which becomes
compatibility jamo. Loose jamo are never joined into syllables, as people write ㅇㅋ and mean it. Old Hangul has no
composed form; its sequences of conjoining jamo are left as they are.
"""

from __future__ import annotations

import re
import unicodedata

_EMOJI = "\u00a9\u00ae\u203c-\u3299\ufe0f\U0001f000-\U0001faff"
_ODD = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\u00ad\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0e-\\x1b\\x1f\\x7f-\\x84\\x86-\\x9f\u00ad\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0d\ufeff\ufff9-\ufffb\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
    f"|\u200d(?![{_EMOJI}])|(?<![{_EMOJI}])\u200d"  # joins 👨‍👩‍👧, does nothing to Hangul
    f"|(?<![{_EMOJI}0-9#*])[\ufe0e\ufe0f]"  # picks the emoji's look
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"  # spell a flag's region, else hidden text
)
_FORMS = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{  # "<narrow> 3131"
        code: chr(int(unicodedata.decomposition(chr(code)).split()[1], 16))
        for code in range(0xFFA1, 0xFFDD)
        if unicodedata.decomposition(chr(code))
    },
    0xFFE6: "₩",
    **dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000, 0x3164, 0xFFA0), " "),
}
_FORMED = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\u3164\uff01-\uff5e\uffa0-\uffdc\uffe6]")


def encodable(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "ignore").decode()
    return text


def without_invisible(text: str) -> str:
    """The text without control characters and characters of no width; all line ends are \\n.

    Kept are the tab, and what makes one emoji out of several characters: the joiner (U+200D) between two, the
    selectors of their look, and the tags of regional flags. Elsewhere a joiner does nothing in Korean and splits words
    for every tokenizer, and tags can hide text from readers.
    """
    if text.isascii() and text.isprintable():
        return text
    if not _ODD.search(text):
        return text
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))


def composed(text: str) -> str:
    """The text in NFC, with full-width ASCII and half-width Hangul in their usual form and all spaces plain."""
    if text.isascii():
        return text
    if _FORMED.search(text):
        text = _FORMED.sub(_usual, text)
    return unicodedata.normalize("NFC", text)


def _usual(match: re.Match[str]) -> str:
    return _FORMS.get(ord(match[0]), match[0])
