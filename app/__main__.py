"""Command line: `python -m app PROGRAM`."""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys

from app import config as configuration
from app.schema import EX_CONFIG

USAGE = """usage: python -m app PROGRAM

  api      the HTTP program
  push     the push streamer
  worker   the job program
  serve    the three of them, supervised
  config   checks the environment and says what is wrong with it
  epoch    begins a new epoch of the push stream: once, after a restore from a backup

All settings come from the environment: docs/configuration.md.
"""


def main(arguments: list[str]) -> int:
    """Run a program; return its exit status. 64 for a wrong command line, 78 for a wrong configuration."""
    if len(arguments) != 1 or arguments[0] not in ("api", "push", "worker", "serve", "config", "epoch"):
        sys.stderr.write(USAGE)
        return os.EX_USAGE
    program = arguments[0]
    # What kills Python itself leaves where it was on standard error, as an exception does.
    faulthandler.enable()
    try:
        config = configuration.load(os.environ)
    except configuration.ConfigError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return EX_CONFIG
    if program == "config":
        sys.stdout.write("".join(f"warning: {w}\n" for w in configuration.warnings(config)) + "ok\n")
        return 0
    # Only what the program needs is imported: gRPC never beside gunicorn's workers.
    modules = {
        "api": "app.http",
        "push": "workers.push.server",
        "worker": "workers.main",
        "serve": "app.supervisor",
        "epoch": "workers.push.epoch",
    }
    status: int = importlib.import_module(modules[program]).main(config)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
