"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.supervisor import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert [target for target in _LINK.findall(text) if not (page.parent / target).exists()] == []


def test_there_are_links() -> None:
    assert sum(len(_LINK.findall(page.read_text())) for page in PAGES) > 20
