"""The HTTP client side: Replicate's API, streams and output files; webhook delivery; the SSRF guard."""
