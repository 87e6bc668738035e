"""`python -m jobs.metrics.table`: write README.md beside this file, the table of all metrics, from `definitions.py`."""

from __future__ import annotations

from pathlib import Path

from jobs.metrics.definitions import DEFINITIONS, FROM_RAY, LABELS, OF_THE_SEED, Source

FILE = Path(__file__).with_name("README.md")

_SOURCES: dict[Source, tuple[str, str]] = {
    "train": (
        "A training run",
        "the metrics port of the Ray node that its first worker is on (PodMonitor `ray-workers`)",
    ),
    "tune": ("A study", "the metrics port of the Ray node that its driver is on (PodMonitor `ray-heads`)"),
    "gateway": ("The gateway", "`/metrics` of each replica (PodMonitor `gateway`)"),
    "operations": (
        "Operations",
        "`/metrics` of `ops-exporter` (PodMonitor `operations`): what backup, drill, health and cost found last",
    ),
}


def markdown() -> str:
    """The whole page."""
    parts = [
        "# Metrics",
        "",
        "Written by `make observability`; `tests/observe` compares it with what real processes export.",
        "Labels take their values from files that a person writes and from run ids, never from requests.",
        "",
        "| asked for by | name |",
        "|---|---|",
        *(f"| {what} | `{name}` |" for what, name in OF_THE_SEED.items()),
    ]
    for source, (title, where) in _SOURCES.items():
        parts += [
            "",
            f"## {title}",
            "",
            f"From {where}.",
            "",
            "| name | type | unit | labels | what |",
            "|---|---|---|---|---|",
        ]
        for one in DEFINITIONS:
            if one.source == source:
                labels = ", ".join(one.labels)
                parts.append(f"| `{one.exported}` | {one.kind} | {one.unit} | {labels} | {one.help} |")
    parts += ["", "## Ray's own, for GPUs", "", "| name | what |", "|---|---|"]
    parts += [f"| `{name}` | {what} |" for name, what in FROM_RAY.items()]
    parts += ["", "## Labels", "", "| label | its values |", "|---|---|"]
    parts += [f"| {name} | {why} |" for name, why in LABELS.items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    FILE.write_text(markdown(), encoding="utf-8")
