"""Benchmarks: `python -m bench` measures and writes bench/report.md."""

import os

# Before gRPC is imported: its handlers would break the programs that are started while it runs.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
