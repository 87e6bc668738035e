"""Rows in files, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.dataset import Conversation
from jobs.dataset.reading import read_rows
from jobs.settings import DataSettings

ASKED = [{"role": "user", "content": "수도는?"}, {"role": "assistant", "content": "서울입니다."}]
ROW = {"messages": ASKED}


def read(source: object, **settings: Any) -> list[Conversation]:
    return read_rows(DataSettings(source=str(source), **settings))


def jsonl(path: Path, *rows: object) -> Path:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
