"""OpenAI's own client, unmodified, against the gateway: answers, streams, errors, feedback."""

from __future__ import annotations

import json

import openai
import pytest

from tests.gateway.conftest import Stage
from tests.gateway.processes import metric


@pytest.fixture
def client(stage: Stage) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stage.gateway.url}/v1", api_key=stage.key, max_retries=0)


def _ask(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


def test_answer_carries_the_public_name_and_what_the_engine_said(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="haetsal", messages=_ask("tokens=3"), extra_headers={"x-haetsal-variant": "challenger"}
    )
    assert answer.choices[0].message.content == "햇살0 햇살1 햇살2 two"
    assert answer.model == "haetsal"
    assert answer.usage and answer.usage.completion_tokens == 3


def test_stream_is_exact_where_pieces_split_hangul_and_has_usage_only_on_request(client: openai.OpenAI):
    for wanted in (True, False):
        options = {"stream_options": {"include_usage": True}} if wanted else {}
        chunks = list(
            client.chat.completions.create(
                model="haetsal",
                messages=_ask("tokens=20 noise"),
                stream=True,
                extra_headers={"x-haetsal-variant": "champion"},
                **options,
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "".join(f"햇살{index} " for index in range(20)) + "one"
        assert {chunk.model for chunk in chunks} == {"haetsal"}
        assert bool(chunks[-1].usage) == wanted
        assert all(chunk.choices for chunk in chunks[:-1] if wanted) and len(chunks) == 22 + wanted


def test_text_completions_stream_and_do_not(client: openai.OpenAI):
    whole = client.completions.create(model="narrow", prompt="tokens=2")
    pieces = client.completions.create(model="narrow", prompt="tokens=2", stream=True)
    assert whole.choices[0].text == "".join(piece.choices[0].text for piece in pieces) == "햇살0 햇살1 one"


def test_none_means_not_given(client: openai.OpenAI):
    nothing = dict.fromkeys(
        ("temperature", "top_p", "n", "stop", "seed", "max_tokens", "presence_penalty", "frequency_penalty", "stream")
    )
    answer = client.chat.completions.create(model="narrow", messages=_ask("tokens=1"), **nothing)
    assert answer.choices[0].message.content == "햇살0 one"


def test_models_are_the_public_ones(client: openai.OpenAI):
    assert "haetsal" in {model.id for model in client.models.list()}


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"model": "nobody's"}, openai.NotFoundError, "model_not_found"),
        ({"model": "haetsal:../../etc/passwd"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": -1}, openai.BadRequestError, "invalid_value"),
        ({"n": 16384}, openai.BadRequestError, "invalid_value"),
        ({"max_tokens": -5}, openai.BadRequestError, "invalid_value"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "invalid_value"),
        ({"messages": []}, openai.BadRequestError, "invalid_value"),
        ({"messages": [{"role": "user", "content": "ㄱ" * 2001}]}, openai.BadRequestError, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "a" * 10_000_000}]}, openai.APIStatusError, "request_too_large"),
        ({"tools": []}, openai.BadRequestError, "unknown_parameter"),
    ],
)
def test_bad_requests_raise_openais_errors(client: openai.OpenAI, options, error, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "haetsal", "messages": _ask("tokens=1"), **options})
    assert caught.value.code == code
    assert 400 <= caught.value.status_code < 500


def test_cut_stream_raises_after_what_came(client: openai.OpenAI):
    stream = client.chat.completions.create(model="narrow", messages=_ask("tokens=8 cut=3"), stream=True)
    came = []
    with pytest.raises(openai.APIError, match="stopped answering"):
        for chunk in stream:
            came.append(chunk.choices[0].delta.content)
    assert came == ["햇살0 ", "햇살1 ", "햇살2 "]


def test_wrong_key_and_no_key_are_401(stage: Stage):
    for key in ("hs-tests." + "x" * 43, "sk-whatever", stage.key + "x"):
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{stage.gateway.url}/v1", api_key=key, max_retries=0).models.list()


def test_feedback_is_tied_to_the_answer_and_kept(client: openai.OpenAI, stage: Stage):
    answer = client.chat.completions.create(model="haetsal", messages=_ask("tokens=1"), user="kim")
    again = client.chat.completions.with_raw_response.create(
        model="haetsal", messages=_ask("tokens=1"), user="kim", extra_headers={"x-request-id": "mine-7"}
    )
    assert again.headers["x-request-id"].startswith("mine-7.")
    for request_id, thumb in ((answer._request_id, "up"), (again.headers["x-request-id"], "down")):
        kept = client.post("/feedback", body={"request_id": request_id, "thumb": thumb, "score": 4}, cast_to=object)
        assert kept["variant"] == again.headers["x-haetsal-variant"]
    records = [json.loads(file.read_text()) for file in stage.folder.glob("feedback/*/*.json")]
    assert {(record["thumb"], record["score"], record["key"]) for record in records} == {
        ("up", 4, "tests"),
        ("down", 4, "tests"),
    }
    assert metric(stage.gateway, "feedback_total", thumb="up") == 1
    forged = str(answer._request_id).replace(".", "x.", 1)
    with pytest.raises(openai.NotFoundError, match="Nothing was answered"):
        client.post("/feedback", body={"request_id": forged, "thumb": "up"}, cast_to=object)
