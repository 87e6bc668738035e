"""`make chat`: talk to the newest adapter, or to that of RUN=<run-id>, in the terminal.

    python -m jobs.chat --run train-20261122-101500-3fa9

An empty line or Ctrl-D ends it; `/new` starts a new conversation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import cli, settings, trained
from jobs.storage import Storage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--run", metavar="RUN_ID", help="default: the training run that finished last")
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    run = trained.find(Storage(tree.storage.root), arguments.run)
    with trained.model_folder(run) as folder:
        model, tokenizer = trained.load(run, folder)
        print(f"{run.id}: type a message; an empty line ends, /new forgets the conversation", file=sys.stderr)
        converse(model, tokenizer)


def converse(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Read messages from stdin until an empty line or the end, and stream the answers to stdout."""
    messages: list[dict[str, str]] = []
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not said:
            return
        if said == "/new":
            messages.clear()
            continue
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": reply(model, tokenizer, messages)})


def reply(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """Generate the assistant's next message, printing it as it comes."""
    import torch
    from transformers import TextStreamer

    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    inputs = inputs.to(model.device)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            pad_token_id=tokenizer.pad_token_id,
            streamer=streamer,
        )
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    cli.main(main)
