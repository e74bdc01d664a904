"""Benchmarks. The last line that each script prints is a JSON object with ratios to a reference."""
