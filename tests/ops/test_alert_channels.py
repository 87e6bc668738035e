"""Channels over real HTTP, SNS on moto's server; and that a channel that hurts holds up nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import listener
import pytest
from listener import Behaviour, Drips, Listener, Resets, Says, Stalls

from jobs.errors import EnvironmentNotReady
from ops.alerts.channels import Alertmanager, Slack, Sns, Undelivered, Webhook, open_channels
from ops.alerts.due import Firing
from ops.alerts.message import Alert
from ops.alerts.send import send
from ops.health.finding import Id, Severity
from ops.health.settings import AlertSettings

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
ALERT = Alert(
    "haetsal",
    Id.HEAD_DOWN,
    "Pod/chat-head",
    Severity.CRITICAL,
    "head chat-head keeps ending: 메모리 <부족> & more",
    "delete pod chat-head at 02:59:30 (deleted)",
    "ops/RUNBOOK.md#head-down",
    NOW,
)
SECRET = "T0PS3CRET-path-of-a-webhook"


@pytest.fixture
def server() -> Iterator[Listener]:
    with listener.listen() as it:
        yield it


def test_webhook(server: Listener) -> None:
    Webhook(f"{server.url}/hook", 2).send([ALERT, replace(ALERT, resolved=True)], NOW)
    (asked,) = server.asked
    assert asked.json["version"] == 1
    first, second = asked.json["alerts"]
    assert (first["state"], second["state"]) == ("firing", "resolved")
    assert first["fingerprint"] == second["fingerprint"] == ALERT.fingerprint
    assert first["sentence"] == ALERT.sentence
    assert first["tried"] == ALERT.tried
    assert first["runbook"] == ALERT.runbook


def test_slack(server: Listener) -> None:
    Slack(f"{server.url}/hook", 2).send([ALERT] * 60, NOW)
    body = server.asked[0].json
    assert body["text"].startswith("[critical] head-down: Pod/chat-head")
    assert len(body["blocks"]) == 50, "Slack refuses more"
    shown = body["blocks"][0]["text"]["text"]
    assert "&lt;부족&gt; &amp; more" in shown, "somebody's message is no markup"
    assert "tried: delete pod" in shown and "runbook: ops/RUNBOOK.md#head-down" in shown
    assert "11 more" in body["blocks"][-1]["text"]["text"]


def test_alertmanager(server: Listener) -> None:
    Alertmanager(server.url, 2, 7200).send([ALERT, replace(ALERT, resolved=True)], NOW)
    (asked,) = server.asked
    assert asked.path == "/api/v2/alerts"
    firing, resolved = asked.json
    assert firing["labels"] == resolved["labels"] == {
        "alertname": "head-down", "severity": "critical", "namespace": "haetsal", "target": "Pod/chat-head",
        "source": "haetsal",
    }  # fmt: skip
    assert datetime.fromisoformat(firing["endsAt"]) == NOW + timedelta(seconds=7200)
    assert datetime.fromisoformat(resolved["endsAt"]) == NOW
    assert firing["annotations"]["summary"] == ALERT.sentence


def test_sns(bucket: str) -> None:
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    Sns(topic, 5).send([ALERT], NOW)
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    body = json.loads(message["Body"])
    assert body["Subject"] == "[critical] head-down: Pod/chat-head"
    assert "메모리 <부족>" in body["Message"] and "runbook: ops/RUNBOOK.md#head-down" in body["Message"]
    with pytest.raises(Undelivered, match="sns: answered NotFound"):
        Sns(f"{topic}-gone", 5).send([ALERT], NOW)


HURTS: dict[str, Behaviour] = {
    "500": Says(500, SECRET),
    "404": Says(404),
    "redirect": Says(302),
    "reset": Resets(),
    "stall": Stalls(),
    "drip": Drips(),
}


@pytest.mark.parametrize("name", HURTS)
def test_a_channel_that_hurts(server: Listener, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails in time, without its secret in the reason, and the other channel is told."""
    with listener.listen() as good:
        server.otherwise = HURTS[name]
        settings = AlertSettings(deadline_s=0.6)
        channels = (Slack(f"{server.url}/services/{SECRET}", 0.3), Webhook(f"{good.url}/", 0.3))
        begun_s = time.monotonic()
        told, failed = send(channels, [Firing(ALERT, 0)], {}, NOW, settings, 300)
        assert time.monotonic() - begun_s < 2
        assert len(server.asked) == 1, "it was tried"
        assert server.hurt == [HURTS[name]] or name == "redirect"
        assert list(failed) == ["slack"]
        assert SECRET not in failed["slack"]
        assert len(good.asked) == 1
        assert list(told["webhook"]) == [ALERT.fingerprint]
        assert told["slack"] == {}, "due again"
        server.otherwise = Says()
        told, failed = send(channels, [Firing(ALERT, 0)], told, NOW, settings, 300)
        assert failed == {}
        assert (len(server.asked), len(good.asked)) == (2, 1), "told late, and nobody twice"


def test_nobody_listens() -> None:
    with listener.listen() as gone:
        address = f"{gone.url}/{SECRET}"
    with pytest.raises(Undelivered, match="webhook: the connection is refused"):
        Webhook(address, 1).send([ALERT], NOW)
    with pytest.raises(Undelivered, match="slack: its name is not known to DNS"):
        Slack(f"http://nowhere.invalid/{SECRET}", 5).send([ALERT], NOW)


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"https://hooks.slack.com/services/{SECRET}\n", encoding="utf-8")
    (slack,) = open_channels(AlertSettings(slack=hook))
    assert slack.name == "slack"
    assert open_channels(AlertSettings()) == ()
    with pytest.raises(EnvironmentNotReady, match=r"alerts.webhook: .*gone cannot be read"):
        open_channels(AlertSettings(webhook=tmp_path / "gone"))
    hook.write_text(f"Bearer {SECRET}", encoding="utf-8")
    with pytest.raises(EnvironmentNotReady, match="holds no http") as error:
        open_channels(AlertSettings(webhook=hook))
    assert SECRET not in str(error.value)
