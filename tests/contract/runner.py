"""The HTTP program with another document: `python -m tests.contract.runner DOCUMENT`."""

from __future__ import annotations

import sys
from pathlib import Path

from app import contract
from app.__main__ import main

if __name__ == "__main__":
    contract.DOCUMENT = Path(sys.argv[1])
    # The path was bound as a default when the function was made.
    contract.load_document.__defaults__ = (contract.DOCUMENT,)
    sys.exit(main(["api"]))
