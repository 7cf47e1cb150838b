"""Benchmarks: `benchmarks/run`. Each figure stands beside a floor measured in the same run."""
