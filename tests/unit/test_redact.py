"""Secrets are masked wherever they hide, and ordinary text is left alone."""

import json

import pytest

from jobs.redact import MASK, redact, redact_tree

ENVIRON = {
    "HF_TOKEN": "hf-not-of-the-usual-shape",
    "AWS_SECRET_ACCESS_KEY": "wJalr/longer+secret",
    "LONGER_SECRET": "prefix-wJalr/longer+secret-suffix",
    "TOKENIZERS_PARALLELISM": "tokenizers-setting",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/identity/token",
    "USE_TOKEN": "true",
    "HOSTNAME": "my-machine-name",
}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("login with hf-not-of-the-usual-shape failed", f"login with {MASK} failed"),
        ("wJalr/longer+secret", MASK),
        ("a prefix-wJalr/longer+secret-suffix b", f"a {MASK} b"),
        ("https://user:pass@host/path", f"https://{MASK}@host/path"),
        ("hf_" + "aB3" * 10, MASK),
        ("key AKIAABCDEFGHIJKLMNOP.", f"key {MASK}."),
        ("ASIAABCDEFGHIJKLMNOP", MASK),
    ],
)
def test_secret_is_masked(text: str, masked: str) -> None:
    assert redact(text, ENVIRON) == masked


@pytest.mark.parametrize(
    "text",
    [
        "tokenizers-setting",
        "/var/run/identity/token",
        "true",
        "my-machine-name",
        "s3://bucket/key@2x.png",
        "햇살 hf_short",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text, ENVIRON) == text


def test_tree_is_masked_at_every_depth_and_fits_json() -> None:
    tree = {
        "a": [{"b": "wJalr/longer+secret"}],
        "wJalr/longer+secret": 1,
        "loss": float("nan"),
        "c": (float("-inf"), 0.5),
    }

    clean = redact_tree(tree, ENVIRON)

    assert clean == {"a": [{"b": MASK}], MASK: 1, "loss": "nan", "c": ["-inf", 0.5]}
    json.dumps(clean, allow_nan=False)


def test_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "set-after-the-import")

    assert redact("key=set-after-the-import") == f"key={MASK}"
