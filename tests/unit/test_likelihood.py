"""Batched log-likelihoods, with and without a shared beginning, against one row at a time."""

from __future__ import annotations

import math
import random

import pytest
import tiny
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from jobs.evaluation.likelihood import Scored, of_groups, of_rows
from jobs.training.scoring import score

VOCABULARY = 50


def llama() -> PreTrainedModel:
    return tiny.model(VOCABULARY)


def gemma() -> PreTrainedModel:
    """Half of its layers see eight tokens back, and its logits are capped."""
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        final_logit_softcapping=5.0,
    )
    return Gemma3ForCausalLM(config).eval()


@pytest.fixture(scope="module", params=[llama, gemma])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(3)
    made: PreTrainedModel = request.param()
    with torch.no_grad():
        for parameter in made.parameters():  # the initial weights are so small that all tokens are equally likely
            parameter.normal_(0, 0.3)
    return made


def alone(model: PreTrainedModel, row: Scored) -> float:
    with torch.inference_mode():
        probabilities = model(torch.tensor([row.input_ids])).logits[0].double().log_softmax(-1)
    positions = range(row.start, len(row.input_ids))
    return sum(float(probabilities[position - 1, row.input_ids[position]]) for position in positions)


def groups() -> list[list[Scored]]:
    """Questions of 2 to 20 tokens, with two or four answers of 1 to 6 tokens."""
    rng = random.Random(5)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    made = []
    for size in (4, 4, 2, 4, 4, 2, 4):
        question = tokens(rng.randint(2, 20))
        made.append([Scored(question + tokens(rng.randint(1, 6)), len(question)) for _ in range(size)])
    made.append([Scored([1, 2, 3, answer], 3) for answer in (4, 5, 6, 7)])  # one token each: nothing is left to predict
    made.append([Scored([1, 2, 3, 4, 5], 2), Scored([1, 2, 9, 8], 3)])  # part before the scored tokens differs too
    return made


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_groups_as_row_by_row(model: PreTrainedModel, batch_size: int) -> None:
    given = groups()
    seen: list[tuple[int, int]] = []

    found = of_groups(model, given, batch_size, 0, lambda done, total: seen.append((done, total)))

    for group, values in zip(given, found, strict=True):
        assert values == pytest.approx([alone(model, row) for row in group], rel=1e-4, abs=1e-4)
    assert seen[-1] == (len(given), len(given))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_as_one_by_one(model: PreTrainedModel, batch_size: int) -> None:
    given = [row for group in groups() for row in group]
    rows = [{"input_ids": r.input_ids, "labels": [-100] * r.start + r.input_ids[r.start :]} for r in given]

    found = of_rows(model, rows, batch_size, 0, lambda *_: None)

    assert found == pytest.approx([alone(model, row) for row in given], rel=1e-4, abs=1e-4)
    assert -sum(found) == pytest.approx(score(model, rows, batch_size, 0).nll, rel=1e-4)  # as training reports it


def test_answers_are_told_apart(model: PreTrainedModel) -> None:
    values = [value for group in of_groups(model, groups(), 8, 0, lambda *_: None) for value in group]

    assert all(value < 0 and math.isfinite(value) for value in values)
    assert len({round(value, 3) for value in values}) > len(values) * 0.9


def test_group_without_a_common_beginning(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="begin alike"):
        of_groups(model, [[Scored([1, 2], 1), Scored([3, 2], 1)]], 8, 0, lambda *_: None)
