"""Benchmarks: `python -m bench` measures and writes bench/report.md."""
