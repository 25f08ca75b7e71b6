"""What the documents point to and speak of is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from app import contract
from app.metrics import REGISTRY
from app.supervisor import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
# Those that are looked into by people in a hurry.
OPERATORS = [ROOT / "docs" / f"{name}.md" for name in ("flows", "how-to", "operations", "runbook", "security")]
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)]*))?\)")
# The endpoint and the kind that the how-to makes up.
_EXAMPLES = {"api.game_applaud", "/api/v1/user/lobby/games/{game_id}/applaud"}


def headings(page: Path) -> set[str]:
    """The anchors of a page, as Markdown's readers make them of its headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        other = page.parent / target if target else page
        assert other.exists(), target
        assert not anchor or anchor in headings(other), f"{target}#{anchor}"


def test_there_are_links() -> None:
    assert sum(len(_LINK.findall(page.read_text())) for page in PAGES) > 20


@pytest.mark.parametrize("page", OPERATORS, ids=lambda page: page.name)
def test_what_is_named_is_there(page: Path) -> None:
    """Functions and tables, paths of the contract, metrics."""
    text = page.read_text()
    schema = (ROOT / "docs" / "schema.sql").read_text()
    there = set(re.findall(r"CREATE (?:FUNCTION|TABLE|UNLOGGED TABLE|VIEW|TYPE) (\w+\.\w+)", schema)) | set(
        contract.load_document()["paths"]
    )
    named = {
        name
        for name in re.findall(r"(?<![\w/.])(?:api|worker|push|backend)\.[a-z_]+\b(?![.*])", text)
        if not name.endswith(".md")
    }
    named |= {path.rstrip("/.") for path in re.findall(r"/api/v1/[\w/{}-]+", text)}
    assert named - there - _EXAMPLES == set()
    metrics = set(re.findall(r"`([a-z_]+_(?:total|seconds|depth|subscribers|queued|violations|in_use))\b", text))
    assert metrics <= REGISTRY.keys()


def test_the_runbook_has_every_alert_and_no_other() -> None:
    rules = yaml.safe_load((ROOT / "ops" / "alerts.yaml").read_text())["groups"][0]["rules"]
    rows = re.findall(r"^\| (`Galaxy.*) \| (.*) \|$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(name for names, _ in rows for name in re.findall(r"`(\w+)`", names)) == sorted(rule["alert"] for rule in rules)
    assert all(_LINK.search(see) for _, see in rows)
