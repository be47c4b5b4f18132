"""What the benchmarks share: data sets, contestants, timing and reports."""
