"""The dashboard and the alert rules speak of metrics and labels that there are, in queries that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.metrics import REGISTRY
from tests.browser import missing

OPS = Path(__file__).resolve().parents[2] / "ops"

ALERTS: list[dict[str, Any]] = yaml.safe_load((OPS / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = [p for p in json.loads((OPS / "dashboard.json").read_text())["panels"] if p["type"] != "row"]

SHOWN = [(p["title"], t["expr"]) for p in PANELS for t in p["targets"]]
QUERIES = [*((rule["alert"], rule["expr"]) for rule in ALERTS), *SHOWN]

# What Prometheus adds by itself.
_ADDED = {"le", "job", "instance"}


def series(expression: str) -> set[str]:
    """The names of series in a query: words that are followed by labels, a range or nothing of a call."""
    bare = re.sub(r"\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(?:by|without)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    return set(re.findall(r"\b[a-z][a-z0-9_]*\b(?!\s*\()", bare))


def metric_of(name: str) -> str:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in REGISTRY and REGISTRY[base].kind == "histogram" else name


@pytest.mark.parametrize("title, expression", QUERIES)
def test_every_metric_and_label_is_declared(title: str, expression: str) -> None:
    names = {metric_of(name) for name in series(expression)}
    assert names
    assert names <= REGISTRY.keys()
    known = _ADDED | {label for name in names for label in REGISTRY[name].labels}
    used = set(re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!~|!=|=)", expression))
    used |= {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in group.split(",")}
    assert used <= known


def test_every_metric_is_shown() -> None:
    assert {metric_of(name) for _, expression in SHOWN for name in series(expression)} == set(REGISTRY)


def test_a_name_that_is_not_there_would_be_seen() -> None:
    assert series('sum by (le) (rate(no_such_bucket{a="b"}[5m])) / max(other_total)') == {"no_such_bucket", "other_total"}


def promtool(*arguments: str | Path) -> None:
    tool = shutil.which("promtool") or missing("promtool is not installed")
    done = subprocess.run([tool, *arguments], cwd=OPS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", "alerts.yaml")


def test_the_rules_alert_when_they_should() -> None:
    promtool("test", "rules", "alerts_test.yaml")


def test_prometheus_takes_the_dashboard_s_queries(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": e.replace("$__rate_interval", "5m")} for n, (_, e) in enumerate(SHOWN)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)


def test_panels_have_places_and_ids_of_their_own() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in PANELS]
    assert len(set(places)) == len(places)
    assert len({p["id"] for p in PANELS}) == len(PANELS)
