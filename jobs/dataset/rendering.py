"""From a conversation to the text that the model sees, and the parts of it that the assistant wrote.

Any chat template will do. Where one marks the assistant's part with `{% generation %}`, that is what is trained.
Elsewhere the part is found by asking the template twice: once with the answer and once with another in its place.
What differs is the answer; it is then widened to the left up to the generation prompt, so that all the model has to
produce itself is trained (an empty reasoning block, say), and to the right over the token that ends the turn. This
needs no template whose output for a shorter conversation is a prefix of that for a longer one, which Qwen3's, for
one, is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.dataset.conversation import Conversation, Message
from jobs.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character and the one after the last."""

_PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{{- '' if loop.first else '\\n\\n' -}}
{{- '### ' + message['role'] | capitalize + ':\\n' + message['content'] -}}
{{- eos_token if message['role'] == 'assistant' -}}
{%- endfor -%}
{{- '\\n\\n### Assistant:\\n' if add_generation_prompt -}}"""


@dataclass(frozen=True)
class Rendered:
    """What the model sees of a row, and the spans of it that are trained."""

    text: str
    spans: tuple[Span, ...]


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text of its own accord: its BOS token, or nothing."""
    added: list[int] = tokenizer("")["input_ids"]
    return added[:1] if added and added[0] == tokenizer.bos_token_id else []


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without chat template (a base model's) a plain one, to be saved with the trained model.

    Turns are headed `### User:` and answers end with the tokenizer's own EOS: ChatML's tokens would have to be added
    to the vocabulary and their embeddings trained from nothing, which an adapter does not do.
    """
    if not tokenizer.chat_template:
        tokenizer.chat_template = ("{{- bos_token -}}" if leading_tokens(tokenizer) else "") + _PLAIN_TEMPLATE


class ChatRenderer:
    """Applies one tokenizer's chat template. Its methods raise UsageError naming the row that the template refuses."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._template: str = tokenizer.get_chat_template()
        self._is_marked = re.search(r"\{%-?\s*generation\s*-?%\}", self._template) is not None
        # Longest first: one end token may be the beginning of another.
        self._end_tokens = sorted({*tokenizer.get_added_vocab(), str(tokenizer.eos_token)}, key=len, reverse=True)
        question = [Message("user", "?")]
        asked = self._apply(question, "the chat template")
        asking = self._apply(question, "the chat template", add_generation_prompt=True)
        self._generation_prompt = asking[_shared(asked, asking) :]

    def render(self, conversation: Conversation) -> Rendered:
        """The whole conversation, with the assistant's turns (each with its end-of-turn token) as spans."""
        return self._marked(conversation) if self._is_marked else self._compared(conversation)

    def prompt(self, conversation: Conversation) -> str:
        """The conversation up to where the assistant's last turn begins."""
        return self._apply(conversation.messages[:-1], conversation.origin, add_generation_prompt=True)

    def _marked(self, conversation: Conversation) -> Rendered:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        render: Callable[..., Any] = render_jinja_template  # declared to return a string, which it does not
        try:
            texts, spans = render(
                [_as_dicts(conversation.messages)],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        except TemplateError as error:
            raise _refused(conversation.origin, error) from None
        if not any(end > start for start, end in spans[0]):
            raise UsageError(f"{conversation.origin}: the chat template marks nothing as the assistant's")
        return Rendered(texts[0], tuple(spans[0]))

    def _compared(self, conversation: Conversation) -> Rendered:
        text = self._apply(conversation.messages, conversation.origin)
        spans: list[Span] = []
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant":
                start, end = self._where(conversation, index, text)
                spans.append((self._widened_left(text, spans[-1][1] if spans else 0, start), end))
        *earlier, (start, end) = spans
        closed = [(s, self._after_end_token(text, e) or e) for s, e in earlier]
        last = self._after_end_token(text, end)
        if last is None:  # nothing would teach the model to stop
            text += str(self._tokenizer.eos_token)
            last = len(text)
        return Rendered(text, (*closed, (start, last)))

    def _where(self, conversation: Conversation, index: int, text: str) -> Span:
        """Where the answer at `index` stands in the rendered text."""
        messages, content = conversation.messages, conversation.messages[index].content
        other = Message("assistant", _character_not_in(text))
        replaced = (*messages[:index], other, *messages[index + 1 :])
        compared = self._apply(replaced, conversation.origin)
        start = _shared(text, compared)
        same = _shared(text[start:][::-1], compared[start:][::-1])
        answer = text[start : len(text) - same]
        if not answer:
            raise UsageError(f"{conversation.origin}: the chat template leaves nothing of turn {index + 1}, an answer")
        # A template may leave out part of an answer (reasoning of earlier turns), or change spaces within it.
        if "".join(answer.split()) not in "".join(content.split()):
            raise UsageError(
                f"{conversation.origin}: the chat template rewrites the assistant's turn {index + 1}, so its tokens "
                "cannot be told from the rest; mark them in the template with {% generation %}"
            )
        return start, start + len(answer)

    def _widened_left(self, text: str, previous_end: int, start: int) -> int:
        prompt = self._generation_prompt
        at = text.rfind(prompt, previous_end, start) if prompt else -1
        return at + len(prompt) if at >= 0 else start

    def _after_end_token(self, text: str, end: int) -> int | None:
        rest = text[end:].lstrip()
        token = next((token for token in self._end_tokens if rest.startswith(token)), None)
        return len(text) - len(rest) + len(token) if token else None

    def _apply(self, messages: Sequence[Message], origin: str, add_generation_prompt: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    _as_dicts(messages), tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except TemplateError as error:
            raise _refused(origin, error) from None


def _shared(one: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _character_not_in(text: str) -> str:
    """A character of Unicode's private use area, so that it has nothing in common with the answer it stands for."""
    return next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text)


def _refused(origin: str, error: Exception) -> UsageError:
    return UsageError(f"{origin}: the model's chat template refuses this conversation: {error}; change its turns")
