"""From rows to token ids and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jobs.dataset.conversation import Conversation
from jobs.dataset.rendering import ChatRenderer, Rendered, Span, leading_tokens
from jobs.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without loss: PyTorch's `cross_entropy` skips it."""

_BATCH_ROWS = 1_000
"""Rows per call of the tokenizer, which spreads them over the cores; bounds the memory that its answer takes."""


@dataclass(frozen=True)
class Encoded:
    """One row of at most `max_length` tokens. `labels` are the ids themselves, or IGNORED; both have one length."""

    input_ids: list[int]
    labels: list[int]
    conversation: Conversation

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss is taken on: the model predicts the next one, so the first never counts."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass
class Encoding:
    """What became of some rows: the encoded ones, those dropped by reason, those cut, and the shortest of all."""

    rows: list[Encoded] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    shortest_tokens: int | None = None


def encode(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    max_length: int,
    overlong: Literal["truncate", "drop"],
) -> Encoding:
    """Tokenise rows as the model will see them.

    Conversations are rendered by the tokenizer's chat template, tokenised whole (pieces would merge differently) and
    without further special tokens (the template has written BOS where it belongs); loss is on the assistant's turns.
    A token that also holds a character of the surroundings counts as the assistant's, as the model has to produce it.
    Plain text is trained on entirely, ends with EOS, and is cut into consecutive rows of `max_length`, each with BOS
    where the model wants one. Raises UsageError for a row that the template refuses.
    """
    if not tokenizer.is_fast:
        raise UsageError("this model's tokenizer has no fast version, which is needed to tell the answers' tokens")
    if tokenizer.eos_token_id is None:
        raise UsageError("this model's tokenizer has no EOS token, so the model could not learn to stop; set one")
    chats = [row for row in conversations if row.text is None]
    renderer = ChatRenderer(tokenizer) if chats else None
    result = Encoding()
    for first in range(0, len(conversations), _BATCH_ROWS):
        batch = conversations[first : first + _BATCH_ROWS]
        rendered = [renderer.render(row) if renderer and row.text is None else _plain(row) for row in batch]
        encodings = tokenizer(
            [item.text for item in rendered],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        for row, item, ids, offsets in zip(
            batch, rendered, encodings["input_ids"], encodings["offset_mapping"], strict=True
        ):
            result.shortest_tokens = min(len(ids), result.shortest_tokens or len(ids))
            if row.text is not None:
                result.rows += _blocks(tokenizer, row, ids, max_length)
            else:
                _keep(result, Encoded(ids, _labels(ids, offsets, item.spans), row), max_length, overlong)
    return result


def _plain(row: Conversation) -> Rendered:
    return Rendered(row.text or "", ())


def _labels(ids: list[int], offsets: list[Span], spans: Sequence[Span]) -> list[int]:
    labels = [IGNORED] * len(ids)
    remaining = iter(spans)
    span = next(remaining, None)
    for index, (start, end) in enumerate(offsets):
        while span and start >= span[1]:
            span = next(remaining, None)
        if span and end > span[0]:
            labels[index] = ids[index]
    return labels


def _keep(result: Encoding, row: Encoded, max_length: int, overlong: str) -> None:
    if len(row.input_ids) > max_length:
        if overlong == "drop":
            result.dropped["longer than data.max_length"] += 1
            return
        row = Encoded(row.input_ids[:max_length], row.labels[:max_length], row.conversation)
        if not row.trained_tokens:
            result.dropped["answer begins beyond data.max_length"] += 1
            return
        result.truncated += 1
    result.rows.append(row)


def _blocks(
    tokenizer: PreTrainedTokenizerBase, row: Conversation, ids: list[int], max_length: int
) -> Iterator[Encoded]:
    prefix = leading_tokens(tokenizer)
    body = [*ids, tokenizer.eos_token_id]
    step = max_length - len(prefix)
    for start in range(0, len(body), step):
        block = body[start : start + step]
        encoded = Encoded([*prefix, *block], [IGNORED] * len(prefix) + block, row)
        if encoded.trained_tokens:
            yield encoded
