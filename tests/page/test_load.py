"""The load driver itself: a benchmark that cannot tell a loss from an answer would measure nothing."""

import asyncio
import json

import pytest

from tests.bench.serving import faults
from tests.bench.serving.driver import ENDS, Kind, Load
from tests.bench.serving.engine import counted

TEXT = counted(2)
STREAM, WHOLE = Kind(True, 2, 0), Kind(False, 2, 0)


def event(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]}, ensure_ascii=False)}\n\n".encode()


def answer(body: bytes, status: str = "200 OK", *, promised: int = 0, headers: str = "") -> bytes:
    headers += f"connection: close\r\ncontent-length: {len(body) + promised}\r\n"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


def whole(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=False).encode()


DONE = b"data: [DONE]\n\n"
CASES = {
    "a whole stream": (STREAM, answer(event(TEXT) + DONE), "ok"),
    "a whole answer": (WHOLE, answer(whole(TEXT)), "ok"),
    "a refusal": (WHOLE, answer(b"{}", "429 Too Many Requests", headers="retry-after: 1\r\n"), "refused"),
    "a failure": (WHOLE, answer(b"{}", "503 Service Unavailable"), "unary lost"),
    "no answer": (WHOLE, b"", "unary lost"),
    "a stream that fails before its first token": (STREAM, answer(b"{}", "500 No"), "stream lost"),
    "a stream without a token": (STREAM, answer(b""), "stream lost"),
    "an error event": (STREAM, answer(event("햇살0 ") + b'data: {"error": {}}\n\n'), "cut with error"),
    "a broken connection": (STREAM, answer(event("햇살0 "), promised=9), "cut by connection"),
    "an end without [DONE]": (STREAM, answer(event(TEXT)), "silently cut"),
    "a token that is missing": (STREAM, answer(event("햇살0 ") + DONE), "wrong"),
    "a token too many": (WHOLE, answer(whole(TEXT + "햇살2 ")), "wrong"),
    "a syllable in two halves": (STREAM, answer(event(TEXT).replace("햇".encode(), b"\\ud587") + DONE), "ok"),
}


async def asked(kind: Kind, bytes_back: bytes) -> Load:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(bytes_back)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        load = Load([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], kinds=[(kind, 1.0)], workers=1)
        await load.run(3)
    return load


@pytest.mark.parametrize("case", CASES)
def test_each_end_is_told_apart(case):
    kind, bytes_back, end = CASES[case]
    tally = asyncio.run(asked(kind, bytes_back)).tally
    assert end in ENDS and dict(tally.ends) == {end: 3}


def test_a_refusal_without_a_time_to_wait_is_counted():
    tally = asyncio.run(asked(WHOLE, answer(b"{}", "429 Too Many Requests"))).tally
    assert tally.without_retry_after == 3


@pytest.mark.parametrize("scenario", ["silence", "gateways"])
def test_a_fault_in_short(scenario, capsys):
    """Those that need no Ray. All of them, at length: `python -m tests.bench.serving faults`."""
    assert asyncio.run(faults.play([scenario], 0)), capsys.readouterr().out
