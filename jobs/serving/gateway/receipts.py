"""Request ids that prove who answered, so that feedback needs no memory of requests.

An answer's id is `<id>.<names>.<proof>`: the client's own id (or a random one), model and variant in base64, and an
HMAC-SHA256 over these and the id of the key that asked. Any replica with the same secret can check it.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import EnvironmentNotReady, UsageError

VARIABLE = "HAETSAL_GATEWAY_SECRET"
_SHORTEST = 32
_PROOF_BYTES = 16
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def plain_id(given: str | None) -> str:
    """The client's own request id if it is a decent one, else a fresh one."""
    return given if given and _PLAIN.fullmatch(given) else secrets.token_hex(12)


@dataclass(frozen=True)
class Answered:
    """What an id proves."""

    request_id: str
    model: str
    variant: str


class Receipts:
    """Signs and checks ids with one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, answered: Answered, key_id: str) -> str:
        """The id that the client sees."""
        names = base64.urlsafe_b64encode(f"{answered.model}\n{answered.variant}".encode()).decode().rstrip("=")
        return f"{answered.request_id}.{names}.{self._proof(answered.request_id, names, key_id)}"

    def check(self, signed: str, key_id: str) -> Answered | None:
        """What was answered under this id to this key; None if nothing was."""
        request_id, names, proof = (*signed.split("."), "", "")[:3]
        if signed.count(".") != 2 or not hmac.compare_digest(
            self._proof(request_id, names, key_id).encode(), proof.encode()
        ):
            return None
        model, _, variant = base64.urlsafe_b64decode(names + "=" * (-len(names) % 4)).decode().partition("\n")
        return Answered(request_id, model, variant)

    def _proof(self, *parts: str) -> str:
        digest = hmac.digest(self._secret, "\n".join(parts).encode(errors="replace"), "sha256")
        return base64.urlsafe_b64encode(digest[:_PROOF_BYTES]).decode().rstrip("=")


def load_secret(path: Path | None) -> bytes | None:
    """The secret in `path`, else in the environment, else None. Raises EnvironmentNotReady, UsageError."""
    where = str(path) if path else f"${VARIABLE}"
    try:
        text = path.read_text(encoding="utf-8").strip() if path else os.environ.get(VARIABLE, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentNotReady(f"{where}: the gateway's secret cannot be read: {error}") from None
    if not text and not path:
        return None
    if len(text) < _SHORTEST:
        raise UsageError(f"{where}: a secret has {_SHORTEST} characters or more; `openssl rand -hex 32` makes one")
    return text.encode()
