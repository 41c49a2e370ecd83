"""Bring the copies below deploy/ up to date: ``python deploy/generate.py``.

Helm reads no file outside its chart and prometheus-operator wants rules as an object, so each has a
copy of prometheus/rules.yml. The chart's schema has every setting of the gateway that a values file
may have. tests/test_kubernetes.py fails while a copy is old.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BeforeValidator

from gateway.settings import Settings

DEPLOY: Final = Path(__file__).parent
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
CHART: Final = DEPLOY / "helm" / "scamp-gateway"

OF_THE_CHART: Final = {
    "admin_bind",
    "authorized_services",
    "bind",
    "discovery_cache",
    "routes",
    "tls_certificate",
    "tls_key",
}
"""What templates set by themselves: ports and places of files."""

_RULE: Final = """\
# Made by deploy/generate.py from deploy/prometheus/rules.yml. Do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: scamp-gateway
  labels:
    app.kubernetes.io/name: scamp-gateway
spec:
"""

_TAKEN: Final = {
    *("type", "enum", "anyOf", "items", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "minItems", "minLength", "maxLength"),
}


def copies() -> dict[Path, str]:
    """Each generated file, and what should be in it."""
    text = RULES.read_text()
    groups = text[text.index("groups:\n") :]
    lines = groups.splitlines(keepends=True)
    rule = _RULE + "".join(f"  {line}" if line.strip() else line for line in lines)
    schema = CHART / "values.schema.json"
    return {
        DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml": rule,
        CHART / "files" / "rules.yml": groups,
        schema: _with_settings(json.loads(schema.read_text())),
    }


def _with_settings(schema: dict[str, Any]) -> str:
    config = schema["properties"]["config"]
    described = Settings.model_json_schema()["properties"]
    config["properties"] = {
        name: _setting(name, described[name])
        for name in Settings.model_fields
        if name not in OF_THE_CHART and not _is_secret(name)
    }
    return json.dumps(schema, indent=2) + "\n"


def _is_secret(name: str) -> bool:
    """It belongs into a Secret, and its twin names the file."""
    return f"{name}_file" in Settings.model_fields


def _setting(name: str, described: dict[str, Any]) -> dict[str, Any]:
    """Description and type, the latter where the gateway takes nothing else."""
    taken = {key: value for key, value in described.items() if key in _TAKEN}
    lenient = any(isinstance(one, BeforeValidator) for one in Settings.model_fields[name].metadata)
    if "$ref" in json.dumps(taken) or (lenient and taken.get("type") != "array"):
        taken = {}
    return {"description": described["description"], **taken}


if __name__ == "__main__":
    for path, content in copies().items():
        path.write_text(content)
