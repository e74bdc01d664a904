"""Measurements. Each script prints, as its last line, one JSON object with ratios against a named reference."""
