"""The engine behind Ray Serve and HAProxy, asked over real HTTP by OpenAI's own client."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from jobs import settings
from jobs.errors import UsageError
from jobs.serving.engines.start import Replica

QUESTION = [{"role": "user", "content": "한국의 수도는 어디인가요?"}]


@pytest.fixture(scope="module")
def client(served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def http(served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as opened:
        yield opened


def ask(client, model="tiny", **options) -> str:
    options = {"max_tokens": 12, "temperature": 0} | options
    return client.chat.completions.create(model=model, messages=QUESTION, **options).choices[0].message.content


def test_models_are_the_base_and_its_adapters(client):
    assert [model.id for model in client.models.list()] == ["tiny", "one"]


def test_a_stream_is_the_whole_answer_in_pieces_and_both_count_alike(client):
    options = {"model": "one", "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    whole = client.chat.completions.create(**options)
    events = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 60
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "length"
    assert len(events) > 10


def test_adapter_and_base_answer_differently_side_by_side(client):
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda model: ask(client, model), ["tiny", "one"]))
    assert both == [ask(client, "tiny"), ask(client, "one")]
    assert both[0] != both[1]


def test_choices_seeds_and_stop_strings(client):
    def draw() -> list[str]:
        answer = client.completions.create(model="tiny", prompt="오늘", n=2, seed=5, max_tokens=10, temperature=1.5)
        return [choice.text for choice in answer.choices]

    first = draw()
    assert first == draw()
    assert first[0] != first[1]
    whole = ask(client, "one", max_tokens=60)
    assert ask(client, "one", max_tokens=60, stop=[whole[10:14]]) == whole[: whole.index(whole[10:14])]


def test_the_request_id_comes_back(http):
    answer = http.get("/v1/models", headers={"x-request-id": "asked-for-this"})
    assert answer.headers.get_list("x-request-id") == ["asked-for-this"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b'{"model": "\xff"}', 400),
        ("/v1/chat/completions", {"model": "tiny"}, 400),
        ("/v1/chat/completions", {"model": "tiny", "messages": QUESTION, "n": 16384}, 400),
        ("/v1/chat/completions", {"model": "tiny", "messages": QUESTION, "n": 3}, 400),  # the engine has two rows
        ("/v1/chat/completions", {"model": "tiny", "messages": QUESTION, "temperature": -1}, 400),
        ("/v1/chat/completions", {"model": "tiny", "messages": QUESTION, "logit_bias": {}}, 400),
        ("/v1/chat/completions", {"model": "../one", "messages": QUESTION}, 404),
        ("/v1/completions", {"model": "tiny", "prompt": "가" * 20_000}, 400),
        ("/v1/completions", {"model": "tiny", "prompt": "가", "max_tokens": 100_000}, 400),
        ("/v1/completions", {"model": "tiny", "prompt": ""}, 400),
        ("/v1/embeddings", {"model": "tiny"}, 404),
    ],
)
def test_bad_input_is_refused_in_the_shape_of_openai(http, path, body, status):
    answer = http.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_replica_with_one_row_becomes_ready(models, tmp_path):
    tree = {"model": {"source": str(models[0])}, "storage": {"root": str(tmp_path)}, "serving": {"most_rows": 1}}
    replica = Replica(settings.from_tree(tree, "test"))
    asyncio.run(asyncio.wait_for(replica.warm_up(), 30))
    replica.engine.close()


def test_an_adapter_that_cannot_be_loaded_leaves_those_that_serve(models, tmp_path):
    base, adapters = models
    tree = {"model": {"source": str(base)}, "storage": {"root": str(tmp_path)}}
    replica = Replica(settings.from_tree(tree, "test"))

    async def swap() -> None:
        await replica.set_adapters({"one": str(adapters["one"])})
        with pytest.raises(UsageError):
            await replica.set_adapters({"two": str(base)})  # a whole model, no adapter

    asyncio.run(swap())
    assert "one" in replica.engine.models
    replica.engine.close()


@pytest.mark.long
def test_a_client_that_goes_away_frees_its_place_within_a_second(http, client):
    long = {
        "model": "tiny",
        "messages": QUESTION,
        "n": 2,
        "max_tokens": 3500,
        "temperature": 0,
        "stream": True,
    }  # both rows
    began = time.monotonic()
    list(client.chat.completions.create(**long))
    whole_s = time.monotonic() - began
    for _ in range(5):
        with http.stream("POST", "/v1/chat/completions", json=long) as answer:
            next(answer.iter_raw())
        began = time.monotonic()
        ask(client, max_tokens=1)
        assert time.monotonic() - began < max(1.0, whole_s / 4)
    assert whole_s > 2, "an answer must take longer than the wait allowed, or this shows nothing"


def test_more_than_the_queue_holds_is_503_with_retry_after(http, served):
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 800, "temperature": 0}

    def status(_: int) -> tuple[int, str | None]:
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=120)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(status, range(12)))
    assert answers.count((200, None)) >= 5, "three at work and two in the queue"
    assert set(answers) == {(200, None), (503, "1")}


@pytest.mark.long
def test_a_pushed_adapter_replaces_another_under_load_and_nothing_is_lost(client, served):
    stop, answers = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            answers.append(ask(client, "one"))

    before = ask(client, "one")
    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(load) for _ in range(2)]
        served.push({"one": str(served.adapters["two"]), "again": str(served.adapters["one"])})
        after, kept = ask(client, "one"), ask(client, "again")
        stop.set()
        for worker in workers:
            worker.result()  # raises what a request raised
    assert kept == before != after
    assert set(answers) <= {before, after}
    assert before in answers
    served.push({"one": str(served.adapters["one"])})
    assert ask(client, "one") == before
    with pytest.raises(openai.NotFoundError):
        ask(client, "again")
