"""Whether a program of compose.yaml is ready: `python -m ops.compose.health api|push|worker`, in its container."""

from __future__ import annotations

import os
import sys
import urllib.request


def is_ready(program: str) -> bool:
    if program == "push":
        from app.push_health import check

        # As app.supervisor names it, which would import much else for each probe.
        return check(os.environ["GALAXY_PUSH_HEALTH_SOCKET"]) == "ok"
    # The worker is ready once it is so far that its figures can be read.
    address = {"api": "http://127.0.0.1:8080/readyz", "worker": "http://127.0.0.1:9100/metrics"}[program]
    with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  # fixed addresses
        return bool(answer.status == 200)


if __name__ == "__main__":
    sys.exit(not is_ready(sys.argv[1]))
