"""What is made of the contract for TypeScript is fresh, and compiles. `make types` writes it anew."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser import missing

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
TOOLS = WEB / "node_modules" / ".bin"


@pytest.fixture(autouse=True)
def node() -> None:
    if shutil.which("node") is None or not TOOLS.exists():
        missing("Node.js or the packages of web/ are not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=WEB, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout if done.returncode else ""


def test_the_types_are_those_of_the_document(tmp_path: Path) -> None:
    made = tmp_path / "api.d.ts"
    assert run(TOOLS / "openapi-typescript", "../app/openapi/openapi.yaml", "--output", made) == ""
    assert made.read_text() == (WEB / "api.d.ts").read_text()


def test_the_types_compile_and_refuse_what_is_wrong() -> None:
    assert run(TOOLS / "tsc", "--noEmit", "--strict", "--skipLibCheck", "false", "example.ts") == ""
