"""The engine on a GPU, by itself and behind Ray Serve as `make serve` starts it: the same answers as on a CPU."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import settings
from jobs.serving import app, local
from jobs.serving.engines.start import Replica
from jobs.serving.engines.task import Sampling, Task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.timeout(600),
]
PROMPTS = ["안녕하세요, 무엇을", "The quick brown", "오늘 저녁에는 김치찌개를", "def", "한글은 " * 60]
LENGTHS = [20, 260, 12, 40, 33]
ASKED = [(name, *task) for name in ("tiny", "one", "two") for task in zip(PROMPTS, LENGTHS, strict=True)]


@pytest.fixture(scope="module")
def tree(models: tuple[Path, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base, adapters = models
    return {
        "model": {"source": str(base), "dtype": "float32"},  # in bfloat16 a row's numbers depend on its company
        "storage": {"root": str(tmp_path_factory.mktemp("storage"))},
        "serving": {"adapters": {name: str(folder) for name, folder in adapters.items()}},
    }


@pytest.fixture(scope="module")
def on_cpu(models: tuple[Path, dict[str, Path]]) -> list[str]:
    """What transformers' own `generate` writes on the CPU for each of `ASKED`, greedily, one after the other."""
    from peft import PeftModel

    base, adapters = models
    tokenizer = AutoTokenizer.from_pretrained(base)
    held: dict[str, Any] = {"tiny": AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)}
    for name, folder in adapters.items():
        held[name] = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    written = []
    for name, prompt, length in ASKED:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        limits = {"max_new_tokens": length, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
        output = held[name].eval().generate(input_ids=ids, **limits)
        written.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).rstrip("\ufffd"))
    assert len(set(written)) == len(ASKED), "adapters must differ, or this shows nothing"
    return written


def test_answers_in_company_are_those_of_a_cpu_alone(tree: dict[str, Any], on_cpu: list[str]) -> None:
    replica = Replica(settings.from_tree(tree, "test"))
    assert torch.cuda.memory_allocated() > 0

    async def text(name: str, prompt: str, length: int) -> str:
        ids = tuple(replica.tokenizer(prompt)["input_ids"])
        task = Task(name, ids, length, Sampling(temperature=0))
        return "".join([piece.text async for piece in replica.engine.generate(task)]).rstrip("\ufffd")

    async def all_at_once() -> list[str]:
        await replica.set_adapters(tree["serving"]["adapters"])
        await replica.warm_up()
        return list(await asyncio.gather(*(text(*asked) for asked in ASKED)))

    try:
        assert asyncio.run(all_at_once()) == on_cpu
    finally:
        replica.engine.close()


@pytest.mark.parametrize("reserved", [0, 1])
def test_ray_serve_gives_the_engine_the_gpu(tree: dict[str, Any], on_cpu: list[str], reserved: int) -> None:
    """Reserved, as on a cluster, or not, as `make serve` has it by itself."""
    options = {"gpus_per_replica": reserved, "max_ongoing_requests": len(ASKED)}
    with local.serve_here(0) as url, httpx.Client(base_url=url, timeout=120) as http:
        free_bytes = torch.cuda.mem_get_info()[0]
        local.deploy(app.build(tree | {"serving": tree["serving"] | options}))
        assert torch.cuda.mem_get_info()[0] < free_bytes - 100 * 2**20  # a CUDA context alone takes more

        def text(asked: tuple[str, str, int]) -> str:
            name, prompt, length = asked
            body = {"model": name, "prompt": prompt, "max_tokens": length, "temperature": 0}
            answer = http.post("/v1/completions", json=body)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["choices"][0]["text"]).rstrip("\ufffd")

        with ThreadPoolExecutor(len(ASKED)) as pool:
            assert list(pool.map(text, ASKED)) == on_cpu
