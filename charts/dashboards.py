"""`python -m charts.dashboards`: write haetsal/dashboards/*.json for Grafana. Pure but for the writing.

What they show is in boards.py; where a panel stands follows from its place in the list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charts.boards import BOARDS, Board, Panel

FOLDER = Path(__file__).parent / "haetsal" / "dashboards"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2


def grafana(board: Board) -> dict[str, Any]:
    """A board in Grafana's own format, version 39 of its schema."""
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    if board.variable:
        name, metric, label = board.variable
        variables.append(
            {
                "name": name,
                "type": "query",
                "datasource": _SOURCE,
                "query": f"label_values({metric}, {label})",
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return {
        "uid": f"haetsal-{board.name}",
        "title": f"Haetsal / {board.title}",
        "tags": ["haetsal"],
        "editable": False,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_grafana(number, panel) for number, panel in enumerate(board.panels)],
    }


def _grafana(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def files() -> dict[Path, str]:
    """Path and content of every dashboard."""
    return {
        FOLDER / f"{board.name}.json": json.dumps(grafana(board), ensure_ascii=False, indent=1) + "\n"
        for board in BOARDS
    }


if __name__ == "__main__":
    made = files()
    for stale in set(FOLDER.glob("*.json")) - set(made):
        stale.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
