"""The data of a run, ready for the trainer, and what there is to say about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from jobs.dataset.conversation import Conversation
from jobs.dataset.encoding import IGNORED, Encoded, Encoding, encode
from jobs.dataset.reading import read_rows
from jobs.dataset.rendering import ChatRenderer, ensure_chat_template, leading_tokens
from jobs.dataset.split import split
from jobs.errors import UsageError
from jobs.settings import DataSettings

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

_PROMPTS = 100
"""As many as `eval.generations` may ask for."""


@dataclass(frozen=True)
class Prompt:
    """A held-out conversation up to the assistant's last turn, or the first half of a held-out text.

    `input_ids` are what the model is to continue, `text` is the same for people, `reference` is what really followed.
    """

    input_ids: list[int]
    text: str
    reference: str


@dataclass(frozen=True)
class Prepared:
    """Both sides of the split, encoded.

    `train` and `held_out` have the columns `input_ids` and `labels` (lists of int, -100 without loss), as TRL's
    SFTTrainer takes them; `packed` says whether it is to pack them. `content_sha256` identifies the rows that were
    read, in their order. `statistics` is for `result.json`: rows read, dropped (by reason) and truncated; per side
    rows, tokens, trained tokens and length percentiles in tokens. `preview` is the first training row as the model
    sees it, trained tokens between ⟦ and ⟧.
    """

    train: datasets.Dataset
    held_out: datasets.Dataset
    packed: bool
    prompts: list[Prompt]
    content_sha256: str
    statistics: dict[str, Any]
    preview: str

    def limit_held_out(self, max_rows: int | None) -> Prepared:
        """The same data with at most `max_rows` held-out rows to score; None leaves all."""
        if max_rows is None or max_rows >= len(self.held_out):
            return self
        return replace(self, held_out=self.held_out.select(range(max_rows)))


def check(data: DataSettings) -> None:
    """Read and split, before anything slow is started. Raises UsageError for whatever is wrong with the data."""
    split(read_rows(data), data.held_out, data.source)


def content_sha256(data: DataSettings) -> str:
    """What `Prepared.content_sha256` will be, without a model. Raises UsageError like `check`."""
    return _sha256(read_rows(data))


def build(tokenizer: PreTrainedTokenizerBase, data: DataSettings) -> Prepared:
    """Read, split and encode `data`.

    A tokenizer without chat template is given one if the data need it (see `ensure_chat_template`). Raises UsageError
    naming file and row for bad input, and for data of which nothing is left to train or to hold out.
    """
    conversations = read_rows(data)
    if any(row.text is None for row in conversations):
        ensure_chat_template(tokenizer)
    sides = split(conversations, data.held_out, data.source)
    train, held_out = (encode(tokenizer, rows, data.max_length, data.overlong) for rows in sides)
    for name, side in (("training", train), ("held-out", held_out)):
        if not side.rows:
            raise UsageError(f"{data.source}: no {name} row is left: {_why_none(side, data.max_length)}")
    digest = _sha256(conversations)
    return Prepared(
        train=_columns(train),
        held_out=_columns(held_out),
        packed=_is_packed(data),
        prompts=_prompts(tokenizer, held_out.rows),
        content_sha256=digest,
        statistics={
            "rows_read": len(conversations),
            "rows_dropped": dict(train.dropped + held_out.dropped),
            "rows_truncated": train.truncated + held_out.truncated,
            "train": _side_figures(train.rows),
            "held_out": _side_figures(held_out.rows),
            "content_sha256": digest,
        },
        preview=_marked(tokenizer, train.rows[0]),
    )


def _sha256(conversations: Sequence[Conversation]) -> str:
    return hashlib.sha256("".join(row.digest for row in conversations).encode()).hexdigest()


def _columns(side: Encoding) -> datasets.Dataset:
    import datasets

    return datasets.Dataset.from_dict(
        {"input_ids": [row.input_ids for row in side.rows], "labels": [row.labels for row in side.rows]}
    )


def _why_none(side: Encoding, max_length: int) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in side.dropped.items())
    return f"{reasons} ({max_length} tokens; the shortest row has {side.shortest_tokens}); raise data.max_length"


def _is_packed(data: DataSettings) -> bool:
    import torch

    return data.packing == "on" or (data.packing == "auto" and torch.cuda.is_available())


def _side_figures(rows: Sequence[Encoded]) -> dict[str, int]:
    lengths = sorted(len(row.input_ids) for row in rows)
    return {
        "rows": len(rows),
        "tokens": sum(lengths),
        "trained_tokens": sum(row.trained_tokens for row in rows),
        # Nearest rank: the smallest length that at least this share of the rows does not exceed.
        **{f"length_p{share}": lengths[-(-share * len(lengths) // 100) - 1] for share in (50, 90, 99, 100)},
    }


def _prompts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded]) -> list[Prompt]:
    first_of: dict[str, Encoded] = {}  # a long text has several rows, and rows may have copies
    for row in rows:
        first_of.setdefault(row.conversation.digest, row)
    chosen = list(first_of.values())[:_PROMPTS]
    renderer = ChatRenderer(tokenizer) if any(row.conversation.text is None for row in chosen) else None
    return [
        _question(tokenizer, renderer, row.conversation)
        if renderer and row.conversation.text is None
        else _first_half(tokenizer, row)
        for row in chosen
    ]


def _question(tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer, conversation: Conversation) -> Prompt:
    input_ids = tokenizer(renderer.prompt(conversation), add_special_tokens=False)["input_ids"]
    *asked, answer = conversation.messages
    return Prompt(input_ids, "\n\n".join(message.content for message in asked), answer.content)


def _first_half(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> Prompt:
    prefix, ids = len(leading_tokens(tokenizer)), row.input_ids
    half = prefix + max(1, (len(ids) - prefix) // 2)
    # A byte-level token may end within a character, which decodes to U+FFFD; go back to where one ends.
    whole = (end for end in range(half, prefix, -1) if not _decoded(tokenizer, ids[prefix:end]).endswith("\ufffd"))
    half = next(whole, half)
    return Prompt(ids[:half], _decoded(tokenizer, ids[prefix:half]), _decoded(tokenizer, ids[half:]))


def _marked(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> str:
    runs = groupby(zip(row.input_ids, row.labels, strict=True), key=lambda token: token[1] != IGNORED)
    texts = [(trained, _decoded(tokenizer, [token for token, _ in tokens])) for trained, tokens in runs]
    return "".join(f"⟦{text}⟧" if trained else text for trained, text in texts)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    # The clean-up is for WordPiece and removes spaces before punctuation that the text really has.
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
