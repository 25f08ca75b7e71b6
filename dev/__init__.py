"""What a laptop, the tests and the benchmarks need and production does not."""
