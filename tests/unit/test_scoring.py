"""Held-out loss against a sum made by hand."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from jobs.training.scoring import Score, score

VOCABULARY = 50
ROWS = [
    {"input_ids": [1, 5, 9, 12, 7], "labels": [-100, -100, 9, 12, 7]},
    {"input_ids": [1, 6, 30, 31, 32, 33, 34, 35, 36], "labels": [-100, -100, -100, 31, 32, 33, 34, 35, 36]},
    {"input_ids": [4, 8], "labels": [-100, 8]},
    {"input_ids": [2, 3, 4], "labels": [2, 3, 4]},  # the first token has nothing before it to predict it from
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(3)
    return tiny.model(VOCABULARY)


def by_hand(model: torch.nn.Module, row: dict[str, list[int]]) -> tuple[float, int]:
    with torch.inference_mode():
        probabilities = model(torch.tensor([row["input_ids"]])).logits[0].float().log_softmax(-1)
    terms = [
        -float(probabilities[position - 1, label])
        for position, label in enumerate(row["labels"])
        if position > 0 and label != -100
    ]
    return sum(terms), len(terms)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_sum_over_tokens_whatever_the_batch_size(model: torch.nn.Module, batch_size: int) -> None:
    expected = [by_hand(model, row) for row in ROWS]

    found = score(model, ROWS, batch_size, pad_token_id=0)

    assert found.tokens == sum(tokens for _, tokens in expected) == 3 + 6 + 1 + 2
    assert found.nll == pytest.approx(sum(nll for nll, _ in expected), rel=1e-5)
    assert found.loss == found.nll / found.tokens
    assert found.perplexity == pytest.approx(math.exp(found.loss))


@pytest.mark.parametrize("padding", [0, 5, 49])
def test_which_token_pads_does_not_matter(model: torch.nn.Module, padding: int) -> None:
    expected = score(model, ROWS, 1, pad_token_id=0)

    assert score(model, ROWS, 4, padding).nll == pytest.approx(expected.nll, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_model_stays(model: torch.nn.Module, training: bool) -> None:
    model.train(training)
    score(model, ROWS, 2, 0)

    assert model.training is training


def test_scores_add_up_and_overflow_is_infinite() -> None:
    assert Score(2.0, 4) + Score(6.0, 4) == Score(8.0, 8)
    assert Score(8.0, 8).loss == 1.0
    assert Score(800.0, 1).perplexity == math.inf
