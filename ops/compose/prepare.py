"""What compose.yaml needs before a program starts: `python -m ops.compose.prepare`, as root, in a container of its own.

Sample geo data, and a directory for games that the worker may write to.
"""

from __future__ import annotations

import os
from pathlib import Path

from dev import geo_sample

if __name__ == "__main__":
    os.chown("/games", 65532, 65532)
    geo_sample.write(Path("/geo/country.mmdb"))
