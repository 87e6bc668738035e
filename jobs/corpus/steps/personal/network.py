"""E-mail and IP addresses."""

from __future__ import annotations

import ipaddress
import re

from jobs.corpus.steps.personal.context import before

EMAIL = re.compile(
    r"[A-Za-z0-9](?<![A-Za-z0-9._%+\-].)[A-Za-z0-9._%+\-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,8}"
    r"(?P<top>[A-Za-z]{2,24})(?![A-Za-z0-9@])"
)
_FILE_ENDING = re.compile("png|jpe?g|gif|svg|webp|css|js|ts|json|html?|pdf|zip|gz|py", re.IGNORECASE)

_PATH = re.compile(r":[\w/~]")


def is_email(match: re.Match[str]) -> bool:
    """Not a file name (icon@2x.png), nor a repository (git@host:path)."""
    return not (_FILE_ENDING.fullmatch(match["top"]) or _PATH.match(match.string, match.end()))


IPV4 = re.compile(r"[0-9](?<![0-9A-Za-z_.\-].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_])(?!\.[0-9])(?!-[0-9A-Za-z])")
IPV6 = re.compile(
    r"[23](?<![0-9A-Za-z.].)(?<![0-9A-Fa-f]:.)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
)
_VERSION = re.compile(
    r"(?:버전|버젼|판|빌드|릴리스|펌웨어|드라이버|업데이트|version|ver\.?|build|release|firmware|driver|v|제|절|항|장|조)"
    r"[ ]?(?:은|는|이|가|을|를|으로)?[ ]?[:=]?[ ]?$",
    re.IGNORECASE,
)
_VERSION_AFTER = re.compile(r"[ ]?(?:버전|버젼|판|빌드|릴리스|업데이트|절|항|장|조|version|build)")


def is_ipv4(match: re.Match[str]) -> bool:
    """An address on the open Internet; private and reserved ones say nothing about anybody.

    Versions and section numbers are told by the words beside them, and by four groups of one digit.
    """
    if (
        len(match[0]) == len("1.2.3.4")
        or _VERSION.search(before(match))
        or _VERSION_AFTER.match(match.string, match.end())
    ):
        return False
    return _is_global(match[0])


def is_ipv6(match: re.Match[str]) -> bool:
    """An address on the open Internet, all of which are in 2000::/3 (RFC 4291)."""
    return _is_global(match[0])


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
