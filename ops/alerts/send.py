"""A round's alerts to all channels at once; none of them can hold up another, or the round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

from jobs.errors import HaetsalError
from jobs.redact import redact
from ops.alerts.channels import Channel
from ops.alerts.due import Firing, Told, delivered, plan
from ops.health.settings import AlertSettings
from ops.together import run_together


def send(
    channels: Sequence[Channel],
    firing: Iterable[Firing],
    sent: Mapping[str, Told],
    now: datetime,
    settings: AlertSettings,
    calm_s: float,
) -> tuple[Mapping[str, Told], dict[str, str]]:
    """What each channel has been told now, and why some were not told, by channel.

    Takes at most `alerts.deadline_s`. What a channel did not take is due again in the next round.
    """
    firing = tuple(firing)
    after: dict[str, Told] = {}
    due: dict[str, tuple[Firing, ...]] = {}
    for channel in channels:
        due[channel.name], after[channel.name] = plan(
            firing, sent.get(channel.name, {}), now, settings.repeat_s, calm_s
        )
    tasks = {
        channel.name: partial(channel.send, [one.alert for one in due[channel.name]], now)
        for channel in channels
        if due[channel.name]
    }
    failed: dict[str, str] = {}
    for name, result in run_together(tasks, settings.deadline_s).items():
        if isinstance(result, HaetsalError):
            failed[name] = redact(str(result))
        else:
            after[name] = delivered(after[name], due[name], now)
    return after, failed
