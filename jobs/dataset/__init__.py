"""Training data: from files of many kinds to token ids with labels.

    rows  ──reading, formats──▶  conversations  ──split──▶  two sides  ──rendering, encoding──▶  input_ids, labels

`check` does the first half, which needs no model and finds nearly all that can be wrong with the data; `build` does
all of it. Nothing here writes anything.
"""

from jobs.dataset.conversation import Conversation, Message
from jobs.dataset.encoding import IGNORED
from jobs.dataset.prepared import Prepared, Prompt, build, check, content_sha256

__all__ = ["IGNORED", "Conversation", "Message", "Prepared", "Prompt", "build", "check", "content_sha256"]
