"""Loss, perplexity and bits per byte on rows that the model was not trained on.

**Bits per byte** is what compares models with different tokenizers. Loss and perplexity are per token, so a model that
cuts Korean into many easy tokens looks better than one that has whole words to guess (SmolLM2 needs 8.5 tokens a word,
Gemma 3.3). The bytes of the text are the same for all:

    bits per byte = Σ nats ÷ (ln 2 · Σ UTF-8 bytes)

over all rows, as in the Pile (Gao et al. 2020, §3.1) and lm-evaluation-harness. The nats are those of all that the
model has to produce: the assistant's answers with the tokens that end them, or a whole text with its end. The bytes are
those of the answers or the text alone, without marks of a template, which differ from model to model.

So rows must be scored whole. Conversations longer than `evaluate.max_length` are left out, and the paired test takes
the rows that both models have. A text is cut into pieces that are all scored; its first token is predicted from the
model's BOS token, or from EOS where it has none, which is what stands before a document in pre-training.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.dataset import IGNORED, Conversation
from jobs.dataset.encoding import encode
from jobs.dataset.reading import read_rows
from jobs.dataset.rendering import ensure_chat_template
from jobs.dataset.split import split
from jobs.errors import UsageError
from jobs.evaluation import likelihood
from jobs.evaluation.benchmark import Item, Loaded, Metric, Progress, checked, spread
from jobs.evaluation.settings import EvaluateSettings
from jobs.settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HeldOut:
    """See `jobs.evaluation.benchmark.Benchmark`. `data` is what the subject was trained on."""

    name = "held-out"
    metrics = (
        Metric("bits_per_byte", "bits per byte", "nats", "bytes", scale=1 / math.log(2), lower_is_better=True),
        Metric("loss", "loss (nats per token)", "nats", "tokens", lower_is_better=True, per_token=True),
        Metric("perplexity", "perplexity", "nats", "tokens", exponential=True, lower_is_better=True, per_token=True),
    )

    def __init__(self, settings: EvaluateSettings, data: DataSettings) -> None:
        if settings.held_out is not None:
            rows, where = read_rows(DataSettings(source=settings.held_out)), settings.held_out
        else:
            rows, where = split(read_rows(data), data.held_out, data.source)[1], f"{data.source} (held-out side)"
        unique = list({row.digest: row for row in rows}.values())
        self._rows = spread(unique, settings.max_rows)
        self._settings = settings
        digest = hashlib.sha256("".join(row.digest for row in self._rows).encode()).hexdigest()
        self.inputs = {where: digest}
        first = self._rows[0]
        self.preview = first.text or "\n".join(f"{m.role}: {m.content}" for m in first.messages)

    def __len__(self) -> int:
        return len(self._rows)

    def run(self, loaded: Loaded, progress: Progress) -> list[Item]:
        """Score one model; of a row of several pieces the sums."""
        tokenizer, settings = loaded.tokenizer, self._settings
        assert isinstance(tokenizer.pad_token_id, int)
        if any(row.text is None for row in self._rows):
            ensure_chat_template(tokenizer)
        encoded = encode(tokenizer, self._rows, settings.max_length, "drop").rows
        if not encoded:
            raise UsageError(f"evaluate.max_length: every held-out row is longer than {settings.max_length} tokens")
        rows = [_with_context(tokenizer, row.input_ids, row.labels) for row in encoded]
        values = likelihood.of_rows(loaded.model, rows, settings.batch_size, tokenizer.pad_token_id, progress)
        nats: dict[str, float] = defaultdict(float)
        tokens: dict[str, int] = defaultdict(int)
        for row, pieces, value in zip(encoded, rows, values, strict=True):
            nats[row.conversation.digest] -= value
            tokens[row.conversation.digest] += sum(label != IGNORED for label in pieces["labels"][1:])
        conversations = {row.conversation.digest: row.conversation for row in encoded}
        return [
            checked(
                loaded,
                Item(
                    digest,
                    "",
                    {"nats": nats[digest], "tokens": tokens[digest], "bytes": scored_bytes(row)},
                    {"origin": row.origin},
                ),
            )
            for digest, row in conversations.items()
        ]


def scored_bytes(row: Conversation) -> int:
    """UTF-8 bytes of what the model has to produce: the text, or the assistant's turns."""
    if row.text is not None:
        return len(row.text.encode())
    return sum(len(message.content.encode()) for message in row.messages if message.role == "assistant")


def _with_context(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int]
) -> dict[str, list[int]]:
    """The row, headed by EOS if its first token is to be scored and would have nothing before it."""
    if labels[0] == IGNORED:
        return {"input_ids": list(ids), "labels": list(labels)}
    assert isinstance(tokenizer.eos_token_id, int)
    return {"input_ids": [tokenizer.eos_token_id, *ids], "labels": [IGNORED, *labels]}
