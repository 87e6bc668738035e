"""Telling people of hold, failure, promotion and roll-back. A channel that is broken never holds up the pipeline.

The address of a webhook is a secret: it is read from a file and is in no event, log or error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import urllib3

from jobs.errors import EnvironmentNotReady, RemoteError
from jobs.events import EventLog
from jobs.redact import redact
from jobs.release.settings import NotifySettings

NOTIFIED = "notified"
_SLACK_LIMIT = 3000
"""Most characters of a section's text."""


@dataclass(frozen=True)
class Notice:
    """What happened, in a line and in a sentence, and where to read on."""

    kind: Literal["hold", "failure", "promotion", "roll back", "rejection"]
    run: str
    title: str
    text: str
    report: str


class Undelivered(RemoteError):
    """A channel did not take a notice."""


def webhook(notice: Notice) -> dict[str, Any]:
    """Version 1 of the body that a webhook of one's own gets."""
    return {"version": 1, **asdict(notice)}


def slack(notice: Notice) -> dict[str, Any]:
    """What a Slack incoming webhook takes. Markup in somebody's error message is shown as it is."""
    said = f"{notice.title}\n{notice.text}\n{notice.report}"
    title, *lines = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split("\n")
    section = {"type": "mrkdwn", "text": "\n".join([f"*{title}*", *lines])[:_SLACK_LIMIT]}
    return {"text": notice.title, "blocks": [{"type": "section", "text": section}]}


_BODIES: dict[str, Callable[[Notice], dict[str, Any]]] = {"webhook": webhook, "slack": slack}


def check(settings: NotifySettings) -> None:
    """Raises EnvironmentNotReady for a file that holds no address, before anything slow begins."""
    for _ in _channels(settings):
        pass


def tell(notice: Notice, settings: NotifySettings, events: EventLog) -> list[str]:
    """Send to every channel; put on record who was told, and return why the others were not."""
    undelivered = []
    for name, address in _channels(settings):
        try:
            _post(name, address, _BODIES[name](notice), settings.timeout_s)
            events.append(NOTIFIED, channel=name, notice=notice.kind)
        except Undelivered as error:
            undelivered.append(str(error))
            events.append(NOTIFIED, channel=name, notice=notice.kind, failed=str(error))
    return undelivered


def _channels(settings: NotifySettings) -> Iterator[tuple[str, str]]:
    for name, path in (("webhook", settings.webhook), ("slack", settings.slack)):
        if path is not None:
            yield name, _address(name, path)


def _address(name: str, path: Path) -> str:
    try:
        address = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise EnvironmentNotReady(f"notify.{name}: {path} cannot be read ({reason}); write the address there") from None
    if not re.fullmatch(r"https?://\S+", address):
        raise EnvironmentNotReady(f"notify.{name}: {path} holds no http(s) address; write it there, on one line")
    return address


def _post(name: str, address: str, body: dict[str, Any], timeout_s: float) -> None:
    try:
        answer = urllib3.request(
            "POST",
            address,
            body=redact(json.dumps(body, ensure_ascii=False)).encode(),
            headers={"Content-Type": "application/json"},
            timeout=timeout_s,
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise Undelivered(f"notify.{name}: no answer ({type(error).__name__})") from None
    if not 200 <= answer.status <= 299:
        raise Undelivered(f"notify.{name}: answered {answer.status}")
