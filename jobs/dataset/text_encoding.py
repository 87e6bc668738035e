"""Bytes to text, and a name for the encoding when they are not UTF-8.

Training takes UTF-8 alone (`decode`); raw text comes in any of the encodings that Korean is found in (`detect`).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from jobs.errors import UsageError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def detect(chunks: Iterable[bytes], name: str) -> str:
    """Codec that decodes a whole file: `utf-8`, `utf-8-sig`, `utf-16`, `utf-16-le`, `utf-16-be` or `cp949`.

    `chunks` are the file's bytes in order, in pieces of any size; one piece is held at a time. CP949 contains EUC-KR.
    Where neither a byte order mark nor valid UTF-8 decides, what is not ASCII must be Hangul for the greater part:
    noise decodes to Hanja and symbols just as often. Raises UsageError naming the first byte that fits nothing.
    """
    encoding, only_ascii, offset = "", True, 0
    foreign = hangul = 0
    for chunk in chunks:
        if not encoding:
            encoding = _first_guess(chunk)
            decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            if encoding != "utf-8" or not only_ascii:
                raise _undecodable(name, encoding, chunk, offset, error) from None
            encoding, decoder = "cp949", codecs.getincrementaldecoder("cp949")()
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _undecodable(name, "UTF-8 or CP949", chunk, offset, error) from None
        only_ascii = only_ascii and text.isascii()
        if encoding in ("cp949", "utf-16-le", "utf-16-be"):
            found = _foreign_and_hangul(text)
            foreign, hangul = foreign + found[0], hangul + found[1]
        offset += len(chunk)
    try:
        decoder.decode(b"", final=True) if encoding else ""
    except UnicodeDecodeError:
        raise UsageError(f"{name}: ends within a character of {encoding}; the file is cut off") from None
    if hangul * 2 < foreign:
        raise UsageError(f"{name}: neither UTF-8 nor Korean text in CP949 or UTF-16; it may be no text at all")
    return encoding or "utf-8"


def _first_guess(chunk: bytes) -> str:
    if chunk.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if chunk.startswith(_UTF16_MARKS):
        return "utf-16"
    if b"\0" in chunk:  # the high byte of ASCII characters, spaces and line ends among them
        return "utf-16-le" if chunk[1::2].count(0) >= chunk[::2].count(0) else "utf-16-be"
    return "utf-8"


def _undecodable(name: str, tried: str, chunk: bytes, offset: int, error: UnicodeDecodeError) -> UsageError:
    at = min(error.start, len(chunk) - 1)
    return UsageError(f"{name}: is not {tried}: byte 0x{chunk[at]:02x} at offset {offset + at}")


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
        foreign, hangul = _foreign_and_hangul(line.decode("cp949"))
    except UnicodeDecodeError:
        return False
    return hangul * 2 > foreign


def _foreign_and_hangul(text: str) -> tuple[int, int]:
    """Number of characters that are not ASCII, and of syllables among them."""
    foreign = [c for c in text if not c.isascii()]
    return len(foreign), sum("가" <= c <= "힣" for c in foreign)
