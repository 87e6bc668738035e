"""API keys: a file of hashes, and the tool that makes them.

    python -m jobs.serving.gateway.keys new --id team-a [--file keys.yaml] [--overlap-h 24]
    python -m jobs.serving.gateway.keys revoke --id team-a [--file keys.yaml]

`new` prints the key once and appends its hash. For an id that has a key it is a rotation: the old one goes on working
for the overlap. `revoke` ends all keys of an id. Running gateways read the file again when it changes.

Hashes are plain SHA-256. A key holds 256 random bits, so nobody can find it by trying: passwords need slow or
peppered hashes because they can be guessed. So there is no second secret to hand to every replica.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AwareDatetime, Field, StringConstraints

from jobs.cli import main
from jobs.errors import UsageError
from jobs.section import Section
from jobs.settings import load_tree

_PREFIX = "hs-"
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Hash(Section):
    """One key, of which only this is kept."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    expires: AwareDatetime | None = None
    """When it stops to work; None: when it is taken out of this file."""


class Key(Section):
    """Whoever holds one of its keys, and how much they may ask."""

    hashes: tuple[Hash, ...] = Field((), max_length=2)
    """The newest last. Two while keys are changed; none: revoked."""
    requests_per_minute: int | None = Field(600, ge=1)
    """By all replicas together; None: no limit."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens of prompts and answers, by all replicas together; None: no limit."""


class Keys(Section):
    """The whole file."""

    keys: dict[KeyId, Key] = Field({})
    """By id, which is what logs and metrics call it."""

    def owner(self, given: str, now: datetime) -> str | None:
        """The id that a key belongs to, or None. The id stands in the key, so that its own hashes are compared, not
        all; an unknown id is compared with a hash of nobody's, so that the time it takes does not tell it apart."""
        name, _, _ = given.removeprefix(_PREFIX).rpartition(".")
        digest = _hash(given)
        hashes = self.keys[name].hashes if name in self.keys else ()
        known = [one.sha256 for one in hashes if one.expires is None or now < one.expires] or [_NOBODY]
        return name if sum(hmac.compare_digest(one, digest) for one in known) else None

    def with_new(self, name: str, now: datetime, overlap: timedelta) -> tuple[Keys, str]:
        """A new key for `name`, and the keys with its hash; the one before works for `overlap` more at most."""
        given = f"{_PREFIX}{name}.{secrets.token_urlsafe(32)}"
        key = self.keys.get(name, Key())
        end = now + overlap
        old = [one.model_copy(update={"expires": min(one.expires or end, end)}) for one in key.hashes[-1:]]
        return self._with(name, key, (*old, Hash(sha256=_hash(given)))), given

    def without(self, name: str) -> Keys:
        """The keys with none left for `name`. Raises UsageError for an unknown one."""
        if name not in self.keys:
            raise UsageError(f"no key has the id {name!r}; there are: {', '.join(self.keys) or 'none'}")
        return self._with(name, self.keys[name], ())

    def _with(self, name: str, key: Key, hashes: tuple[Hash, ...]) -> Keys:
        return self.model_copy(update={"keys": {**self.keys, name: key.model_copy(update={"hashes": hashes})}})


def load(path: Path) -> Keys:
    """The file of hashes. Raises UsageError naming file, key and remedy."""
    return load_tree(Keys, path)


def _hash(given: str) -> str:
    return hashlib.sha256(given.encode(errors="replace")).hexdigest()


def _save(path: Path, keys: Keys) -> None:
    text = yaml.safe_dump(keys.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["new", "revoke"])
    parser.add_argument("--id", required=True, metavar="NAME", help="who it is for: letters, digits, _ and -")
    parser.add_argument("--file", type=Path, default=Path("keys.yaml"), help="default: %(default)s, made if missing")
    parser.add_argument(
        "--overlap-h", type=float, default=24.0, metavar="HOURS", help="how long an old key still works"
    )
    options = parser.parse_args()
    keys = load(options.file) if options.file.exists() else Keys()
    if options.command == "revoke":
        _save(options.file, keys.without(options.id))
        return
    keys, given = keys.with_new(options.id, datetime.now(UTC), timedelta(hours=options.overlap_h))
    Keys.model_validate(keys.model_dump())
    _save(options.file, keys)
    print(given)


if __name__ == "__main__":
    main(_run)
