"""Benchmarks: `python -m benchmarks`. Ratios taken in one run on one machine, after equality was asserted."""
