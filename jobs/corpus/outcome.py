"""Everything that a preparation found, for the datasheet, the card and the run's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, zip_longest
from typing import Any

from jobs.corpus.tally import Tally, class_bound
from jobs.corpus.tokens import Fertility
from jobs.manifest import Entry

EXACT, NEAR = "exact_duplicate", "near_duplicate"


@dataclass(frozen=True)
class Outcome:
    """`files` and `written` are what `stages.read_group` and `stages.write_shard` found, `repeats` how many rows EXACT
    and NEAR took, `pairs` a few of the latter: source and beginning of the dropped row, and of the one that stayed."""

    files: Sequence[dict[str, Any]]
    tally: Tally
    repeats: dict[str, int]
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]]
    written: Sequence[dict[str, Any]]
    fertility: Fertility

    @property
    def quarantined(self) -> list[dict[str, Any]]:
        """The files that were put aside."""
        return [file for file in self.files if file["error"]]

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by the rule that took them, most first."""
        return dict(sorted((self.tally.dropped + Counter(self.repeats)).items(), key=lambda item: (-item[1], item[0])))

    @property
    def parts(self) -> dict[str, Entry]:
        """Size and checksum of each data file."""
        return {
            name: Entry(file["bytes"], file["sha256"])
            for shard in self.written
            for name, file in shard["files"].items()
        }

    @cached_property
    def kept(self) -> dict[str, int]:
        """Rows per side."""
        rows = Counter({"train": 0, "held_out": 0})
        for shard in self.written:
            for name, file in shard["files"].items():
                rows[name.partition("/")[0]] += file["rows"]
        return dict(rows)

    @property
    def lengths(self) -> list[int]:
        """Kept rows per class of length."""
        return [sum(classes) for classes in zip_longest(*(shard["lengths"] for shard in self.written), fillvalue=0)]

    def length_percentile(self, share: float) -> int:
        """About how many characters at least `share` of the kept rows do not exceed: the end of their class."""
        wanted = share * sum(self.lengths)
        number = next(number for number, seen in enumerate(accumulate(self.lengths)) if seen >= wanted)
        return round(class_bound(number + 1))

    def figures(self) -> dict[str, Any]:
        """Numbers for `result.json`, MLflow and the card."""
        return {
            "files": len(self.files),
            "files_quarantined": len(self.quarantined),
            "bytes_read": sum(file["bytes"] for file in self.files),
            "rows_read": self.tally.rows,
            "rows_dropped": self.dropped,
            "rows": self.kept,
            "characters": sum(shard["characters"] for shard in self.written),
            "rows_changed": dict(sorted(self.tally.changed.items())),
            "personal_data_masked": dict(sorted(self.tally.masked.items())),
            "tokenizer": {name: round(value, 4) for name, value in self.fertility.figures().items()},
        }


def overlap_by_file(overlaps: dict[str, int]) -> dict[str, tuple[int, list[str]]]:
    """Per evaluation file the rows that were dropped for it, and the lines that they share a run with, in order."""
    files: dict[str, tuple[int, list[str]]] = {}
    for item, count in sorted(overlaps.items(), key=_by_line):
        name, _, line = item.rpartition(":")
        known = files.get(name, (0, []))
        files[name] = (known[0] + count, [*known[1], line])
    return files


def _by_line(item: tuple[str, Any]) -> tuple[str, int]:
    name, _, line = item[0].rpartition(":")
    return name, int(line)


def listed(names: Iterable[str], limit: int) -> str:
    """The first `limit` names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more
