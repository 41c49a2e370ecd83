"""Makes dashboard.json, which Grafana reads:

    python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json

What differs from panel to panel is in `panels`; what all have in common Grafana repeats for each.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from panels import HEADLINES, ROWS, Panel

SCHEMA: Final = 41
"""Of Grafana 12; Grafana 11 reads it, too."""

WIDTH: Final = 24
HEIGHT: Final = 8

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


def panel(made: Panel, number: int, x: int, y: int, height: int) -> Json:
    """As Grafana has it."""
    several = made.kind == "timeseries"
    targets = [
        {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend or made.title,
            "range": several,
            "instant": not several,
            "format": "table" if made.kind == "table" else "time_series",
            "refId": chr(ord("A") + index),
        }
        for index, (expr, legend) in enumerate(made.lines)
    ]
    defaults: Json = {"unit": made.unit}
    if made.least is not None:
        defaults["min"] = made.least
    if several:
        defaults["custom"] = {
            "fillOpacity": 20 if made.stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if made.stacked else "none", "group": "A"},
        }
    if made.kind == "stat":
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(made)}
    return {
        "id": number,
        "type": made.kind,
        "title": made.title,
        "description": made.text,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": made.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(made.kind),
        "targets": targets,
    }


def _steps(made: Panel) -> list[Json]:
    if made.bad_from is not None:
        return [{"color": "green", "value": None}, {"color": "red", "value": made.bad_from}]
    if made.good_from is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": made.good_from}]
    return [{"color": "blue", "value": None}]


def _options(kind: str) -> Json:
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "none"}
    return {"showHeader": True, "cellHeight": "sm"}


def panels() -> list[Json]:
    """Rows and panels, from left to right and from top to bottom."""
    made: list[Json] = []
    y = _laid(made, HEADLINES, 0, 4)
    for title, content in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        made.append(
            {"id": len(made) + 1, "type": "row", "title": title, "collapsed": False,
             "gridPos": place, "panels": []}
        )  # fmt: skip
        y = _laid(made, content, y + 1, HEIGHT)
    return made


def _laid(made: list[Json], content: list[Panel], y: int, height: int) -> int:
    """Append `content` beginning at `y`; where it ends."""
    x = 0
    for one in content:
        if x + one.width > WIDTH:
            x, y = 0, y + height
        made.append(panel(one, len(made) + 1, x, y, height))
        x += one.width
    return y + height


def variable(name: str, label: str, query: str) -> Json:
    """A choice among the values of a label: several, or all."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "Variable"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> Json:
    """All of it."""
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
    }
    return {
        "uid": "scamp-gateway",
        "title": "scamp-gateway",
        "description": "Everything that the gateways tell Prometheus.",
        "tags": ["scamp", "gateway"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(scamp_gateway_build_info, job)"),
                variable(
                    "instance",
                    "Gateway",
                    'label_values(scamp_gateway_build_info{job=~"$job"}, instance)',
                ),
            ]
        },
        "panels": panels(),
    }


def text() -> str:
    """What stands in the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
