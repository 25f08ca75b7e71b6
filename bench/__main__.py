"""Measure, and write bench/report.md: `python -m bench [SECTION …] [--smoke]`.

Sections that are named, and everything with `--smoke`, which only proves that it works, are printed instead. Run from the
repository's root. Everything that is started is stopped, also when it is interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.supervisor import ROOT
from bench import data, jobs, lists, lookup, push, report, start, writes
from bench.section import Section

SECTIONS: dict[str, Callable[..., Section]] = {
    "look-up": lookup.run,
    "writes": writes.run,
    "jobs": jobs.run,
    "lists": lists.run,
    "push": push.run,
    "start": start.run,
}


def run(names: Sequence[str], *, is_smoke: bool) -> str:
    """Measure the sections and return the report."""
    found = []
    with data.deployed() as cluster:
        version = data.version(cluster)
        for name in names:
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="galaxy-bench-") as directory:
                found.append(SECTIONS[name](cluster, Path(directory), is_smoke=is_smoke))
            data.settle(cluster)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return report.write(found, postgres=version)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("section", nargs="*", metavar="SECTION", help=f"only these, printed: {', '.join(SECTIONS)}")
    parser.add_argument("--smoke", action="store_true", help="only prove that everything works")
    options = parser.parse_args()
    if unknown := set(options.section) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    # As Ctrl-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    text = run(options.section or list(SECTIONS), is_smoke=options.smoke)
    if options.smoke or options.section:
        print(text)
    else:
        (ROOT / "bench" / "report.md").write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
