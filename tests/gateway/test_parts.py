"""The gateway's pure parts, each by itself."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import UsageError
from jobs.serving.gateway.config import Config, Variant, load
from jobs.serving.gateway.keys import Key, Keys
from jobs.serving.gateway.limits import KeyLimits
from jobs.serving.gateway.receipts import Answered, Receipts, load_secret
from jobs.serving.gateway.sse import Events, only_opening
from jobs.serving.gateway.variants import ranked
from jobs.serving.protocol import ApiError, ChatRequest, parse

USERS = [f"user-{number}" for number in range(4000)]
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def _first(**weights: float) -> list[str]:
    variants = [Variant(name=name, backend=name, weight=weight) for name, weight in weights.items()]
    return [ranked(variants, user)[0].name for user in USERS]


def test_users_are_shared_out_as_the_weights_are():
    share = _first(champion=9, challenger=1).count("challenger") / len(USERS)
    assert share == pytest.approx(0.1, abs=0.02)  # four standard deviations


def test_changed_weight_moves_no_more_users_than_it_must():
    before, after = _first(a=6, b=3, c=1), _first(a=6, b=3, c=4)
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moved} == {"c"}
    assert len(moved) / len(USERS) == pytest.approx(4 / 13 - 1 / 10, abs=0.03)


def test_variant_without_weight_only_stands_in():
    assert set(_first(champion=1, spare=0)) == {"champion"}


def test_key_rotation_overlaps_expires_and_is_revoked():
    first, old = Keys().with_new("team", NOW, timedelta(hours=1))
    second, new = first.with_new("team", NOW, timedelta(hours=1))
    later = NOW + timedelta(hours=2)
    assert second.owner(old, NOW) == second.owner(new, NOW) == second.owner(new, later) == "team"
    assert second.owner(old, later) is None
    assert second.without("team").owner(new, NOW) is None
    assert old not in second.model_dump_json() and new not in second.model_dump_json()
    third, _ = second.with_new("team", NOW, timedelta(hours=9))
    assert third.owner(old, NOW) is None, "two keys at most"
    with pytest.raises(UsageError, match="no key has the id 'nobody'"):
        second.without("nobody")


def test_key_of_another_id_does_not_open_it():
    keys, key = Keys().with_new("team", NOW, timedelta())
    keys, _ = keys.with_new("other", NOW, timedelta())
    assert keys.owner(key.replace("team", "other"), NOW) is None


def test_limits_are_granted_by_share_and_refilled_evenly():
    now = 0.0
    limits = KeyLimits(Key(requests_per_minute=60, tokens_per_minute=None), replicas=2, clock=lambda: now)
    for _ in range(30):
        limits.request()
    with pytest.raises(ApiError) as refused:
        limits.request()
    assert (refused.value.status, refused.value.retry_after_s) == (429, 2)
    now = 2.0
    limits.request()


def test_reserved_tokens_bound_many_requests_at_once_and_are_given_back():
    limits = KeyLimits(Key(tokens_per_minute=1000), replicas=1, clock=lambda: 0.0)
    first = limits.reserve(600)
    with pytest.raises(ApiError, match="tokens per minute"):
        limits.reserve(600)
    first.settle(100)
    second = limits.reserve(600)
    second.settle(5000)
    with pytest.raises(ApiError) as refused:
        limits.reserve(1)
    assert refused.value.retry_after_s == pytest.approx((5000 + 100 - 1000 + 1) * 60 / 1000, abs=1)


def test_request_larger_than_the_limit_needs_a_full_bucket_and_is_not_refused_for_ever():
    limits = KeyLimits(Key(tokens_per_minute=100), replicas=1, clock=lambda: 0.0)
    limits.reserve(5000)


def test_receipt_proves_model_variant_and_key():
    receipts = Receipts(b"s" * 32)
    answered = Answered("abc", "org/name:1", "challenger")
    signed = receipts.sign(answered, "team")
    assert receipts.check(signed, "team") == answered
    assert receipts.check(signed, "other") is None
    assert Receipts(b"t" * 32).check(signed, "team") is None
    for index, letter in enumerate(signed):
        changed = signed[:index] + ("A" if letter != "A" else "B") + signed[index + 1 :]
        if index != len(signed) - 1:  # the last letter of base64 has bits that count for nothing
            assert receipts.check(changed, "team") is None
    for junk in ("", ".", "..", "a.b", "a.b.c.d", "é.é.é", "a" * 500):
        assert receipts.check(junk, "team") is None


def test_short_secret_is_refused(tmp_path):
    (tmp_path / "secret").write_text("short")
    with pytest.raises(UsageError, match="32 characters"):
        load_secret(tmp_path / "secret")


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


STREAM = b"".join(
    [
        *(_event({"choices": [{"delta": {"content": text}}], "usage": None}) for text in ("햇", '"usage":{', "살")),
        _event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        b"data: [DONE]\n\n",
    ]
)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_stream_is_the_same_wherever_pieces_end(size, line_end):
    stream = STREAM.replace(b"\n", line_end)
    events = Events(keep_usage=True)
    passed = [events.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(passed) == STREAM
    assert all(piece.endswith(b"\n\n") for piece in passed if piece)
    assert (events.done, events.failed, events.usage, events.count) == (True, False, (3, 2), 5)


def test_usage_that_the_client_did_not_ask_for_is_taken_out():
    events = Events(keep_usage=False)
    assert events.feed(STREAM) == STREAM.replace(
        _event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}), b""
    )
    assert events.usage == (3, 2)


def test_engines_error_and_what_comes_after_it_are_not_passed_on():
    events = Events(keep_usage=True)
    good = _event({"choices": [{"delta": {"content": '{"error"'}}]})
    assert events.feed(good + _event({"error": {"message": "secret"}}) + good) == good
    assert events.failed and not events.done


def test_event_without_end_is_refused():
    events = Events(keep_usage=True)
    with pytest.raises(ValueError, match="without an end"):
        for _ in itertools.repeat(None, 100):
            events.feed(b"x" * 100_000)


def test_opening_events_are_told_from_answers():
    opening = _event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert only_opening(opening) and only_opening(opening * 2)
    for more in (
        _event({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}),
        _event({"choices": [{"delta": {"content": "a"}}]}),
        _event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        b"data: [DONE]\n\n",
    ):
        assert not only_opening(opening + more)


CONFIG = {
    "backends": {"a": {"urls": ["http://127.0.0.1:1"], "model": "m"}},
    "models": {"m": {"variants": [{"name": "champion", "backend": "a"}]}},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limit": {}}, "limit: unknown key; did you mean limits?"),
        ({"models": {"m": {"variants": [{"name": "c", "backend": "a", "wieght": 1}]}}}, "did you mean weight?"),
        ({"models": {"m": {"variants": [{"name": "c", "backend": "b"}]}}}, "no backend 'b'; there are: a"),
        ({"models": {"m": {"variants": []}}}, "needs a weight over 0"),
        ({"models": {"m": {"variants": [{"name": "c", "backend": "a"}] * 2}}}, "names of their own"),
        ({"backends": {"a": {"urls": ["localhost:1"], "model": "m"}}}, "must start with http"),
        ({"backends": {"a": {"urls": ["http://u:p@h"], "model": "m"}}}, "must not hold credentials"),
    ],
)
def test_wrong_config_says_what_to_do(tmp_path, change, said):
    file = tmp_path / "routes.yaml"
    file.write_text(json.dumps(CONFIG | change))
    with pytest.raises(UsageError) as refused:
        load(file)
    assert said in str(refused.value) and str(file) in str(refused.value)


def test_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "routes.yaml"
    file.write_text(json.dumps(CONFIG | {"keys_file": "k.yaml", "feedback": {}}))
    config = load(file)
    assert config.keys_file == tmp_path / "k.yaml" and config.feedback
    assert config.feedback.address == str(tmp_path / "feedback")
    assert isinstance(config, Config)


@pytest.mark.parametrize("broken", [{"content": 5}, {"content": [{"type": "text", "text": 5}]}])
def test_a_refusal_names_the_parameter_and_not_how_we_check_it(broken: dict):
    body = {"model": "m", "messages": [{"role": "user"} | broken]}
    with pytest.raises(ApiError) as refused:
        parse(json.dumps(body).encode(), ChatRequest)
    assert refused.value.param == "messages.0.content"
