"""Bytes to text, and a name for the encoding when they are not UTF-8."""

from __future__ import annotations

import codecs

from jobs.errors import UsageError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8 with or without byte order mark. Raises UsageError naming encoding, line and byte otherwise."""
    if data.startswith(_UTF16_MARKS):
        raise _wrong("UTF-16", "UTF-16", name, 1, 0)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the mark that it has skipped.
        offset = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        line = data.count(b"\n", 0, offset) + 1
        if b"\0" in data:
            raise _wrong("UTF-16", "UTF-16LE", name, line, offset) from None
        if _is_korean_cp949(_line_around(data, offset)):
            raise _wrong("CP949 (EUC-KR)", "CP949", name, line, offset) from None
        raise UsageError(
            f"{name}:{line}: not UTF-8: byte 0x{data[offset]:02x} at offset {offset}; save the file as UTF-8"
        ) from None
    if "\0" in text:  # ASCII in UTF-16 is valid UTF-8 with a zero in every other byte
        raise _wrong("UTF-16 or binary", "UTF-16LE", name, text.count("\n", 0, text.index("\0")) + 1, data.index(b"\0"))
    return text


def _wrong(encoding: str, iconv_name: str, name: str, line: int, offset: int) -> UsageError:
    return UsageError(
        f"{name}:{line}: the text is {encoding}, not UTF-8 (from byte {offset} on); "
        f"convert it: iconv -f {iconv_name} -t UTF-8 {name} > utf8-copy"
    )


def _line_around(data: bytes, offset: int) -> bytes:
    start, end = data.rfind(b"\n", 0, offset) + 1, data.find(b"\n", offset)
    return data[start : end if end >= 0 else len(data)]


def _is_korean_cp949(line: bytes) -> bool:
    """Whether the line decodes as CP949 and most of what is not ASCII in it is Hangul.

    Noise would decode to Hanja and symbols just as often.
    """
    try:
        foreign = [c for c in line.decode("cp949") if not c.isascii()]
    except UnicodeDecodeError:
        return False
    return sum("가" <= c <= "힣" for c in foreign) * 2 > len(foreign)
