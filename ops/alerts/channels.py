"""The four channels. Each sends all alerts of a round in as few requests as it can, and raises Undelivered if not.

No address of a webhook is ever in an error: it is the secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import EnvironmentNotReady, RemoteError
from ops.alerts.message import Alert
from ops.health.probes import explain
from ops.health.settings import AlertSettings

_SUBJECT = 100
"""Longest subject that SNS takes, in ASCII."""
_BLOCKS = 50
"""Most blocks of one Slack message."""


class Undelivered(RemoteError):
    """A channel did not take an alert."""


class Channel(Protocol):
    """Somebody who is told."""

    name: str

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        """Tell them all. Raises Undelivered."""


class Webhook:
    """JSON, as in `body`, to an address of your own."""

    name = "webhook"

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        _post(self.name, self._address, self.body(alerts), self._timeout_s)

    def body(self, alerts: Sequence[Alert]) -> Any:
        """Version 1: a list of alerts, each with its fingerprint and its state, firing or resolved."""
        rows = []
        for one in alerts:
            row = asdict(one) | {"since": one.since.isoformat(), "fingerprint": one.fingerprint}
            row["state"] = "resolved" if row.pop("resolved") else "firing"
            rows.append(row)
        return {"version": 1, "alerts": rows}


class Slack(Webhook):
    """A Slack incoming webhook: one section an alert."""

    name = "slack"

    def body(self, alerts: Sequence[Alert]) -> Any:
        """Blocks, and a text for notifications. Longer lists are cut, and say so."""
        shown = alerts[: _BLOCKS - 1]
        blocks = [_section(_slack_text(one)) for one in shown]
        if len(alerts) > len(shown):
            blocks.append(_section(f"… and {len(alerts) - len(shown)} more: `make health`"))
        return {"text": "\n".join(one.title for one in shown), "blocks": blocks}


class Alertmanager:
    """Alertmanager's API v2, which groups, silences and routes by itself."""

    name = "alertmanager"

    def __init__(self, address: str, timeout_s: float, lasts_s: float) -> None:
        self._address, self._timeout_s, self._lasts_s = address.rstrip("/"), timeout_s, lasts_s

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        rows = [self._row(one, now) for one in alerts]
        _post(self.name, f"{self._address}/api/v2/alerts", rows, self._timeout_s)

    def _row(self, one: Alert, now: datetime) -> dict[str, Any]:
        """Without an end Alertmanager would call an alert resolved after minutes; ours ends when it is not repeated."""
        ends = now if one.resolved else now + timedelta(seconds=self._lasts_s)
        labels = {"alertname": one.finding, "severity": one.severity, "namespace": one.namespace, "target": one.target}
        return {
            "labels": labels | {"source": "haetsal"},
            "annotations": {"summary": one.sentence, "tried": one.tried, "runbook": one.runbook},
            "startsAt": one.since.isoformat(),
            "endsAt": ends.isoformat(),
        }


class Sns:
    """An SNS topic: one message an alert, as text for people."""

    name = "sns"

    def __init__(self, topic: str, timeout_s: float) -> None:
        self._topic = topic
        once = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
        try:
            self._client = boto3.client("sns", region_name=topic.split(":")[3], config=once)
        except BotoCoreError as error:
            raise EnvironmentNotReady(f"alerts.sns_topic: {error}") from None

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        try:
            for one in alerts:
                subject = one.title.encode("ascii", "replace").decode()[:_SUBJECT]
                self._client.publish(TopicArn=self._topic, Subject=subject, Message=text(one))
        except ClientError as error:
            said = error.response.get("Error", {})
            raise Undelivered(f"sns: answered {said.get('Code', '?')}: {said.get('Message', '')}") from None
        except BotoCoreError as error:
            raise Undelivered(f"sns: {error}") from None


def open_channels(settings: AlertSettings) -> tuple[Channel, ...]:
    """The channels that are set. Raises EnvironmentNotReady for a file that holds no address."""
    timeout_s = settings.deadline_s / 2
    channels: list[Channel] = []
    if settings.webhook:
        channels.append(Webhook(_secret("alerts.webhook", settings.webhook), timeout_s))
    if settings.slack:
        channels.append(Slack(_secret("alerts.slack", settings.slack), timeout_s))
    if settings.sns_topic:
        channels.append(Sns(settings.sns_topic, timeout_s))
    if settings.alertmanager:
        channels.append(Alertmanager(settings.alertmanager, timeout_s, 2 * settings.repeat_s))
    return tuple(channels)


def text(one: Alert) -> str:
    """An alert for people: what, what was tried, where to read on."""
    lines = [one.sentence, f"since {one.since:%Y-%m-%d %H:%M:%S %Z}, namespace {one.namespace}"]
    lines += [f"tried: {one.tried}"] if one.tried else []
    return "\n".join([*lines, f"runbook: {one.runbook}"])


def _secret(key: str, path: Path) -> str:
    try:
        address = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise EnvironmentNotReady(f"{key}: {path} cannot be read ({reason}); mount the Secret there") from None
    if not re.fullmatch(r"https?://\S+", address):
        raise EnvironmentNotReady(f"{key}: {path} holds no http(s) address; write it there, on one line")
    return address


def _post(name: str, address: str, body: Any, timeout_s: float) -> None:
    try:
        answer = urllib3.request(
            "POST",
            address,
            body=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json"},
            timeout=timeout_s,
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise Undelivered(f"{name}: {explain(error, timeout_s)}") from None
    if not 200 <= answer.status <= 299:
        raise Undelivered(f"{name}: answered {answer.status}")


def _slack_text(one: Alert) -> str:
    """Slack's mrkdwn; what looks like markup in somebody's error message is shown as it is."""
    title, *lines = (
        f"{one.title}\n{text(one)}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split("\n")
    )
    return "\n".join([f"*{title}*", *lines])[:3000]


def _section(said: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": said}}
