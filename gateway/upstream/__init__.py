"""HTTP out: the Replicate client, its streams, output downloads, webhook delivery, and the SSRF guard."""
