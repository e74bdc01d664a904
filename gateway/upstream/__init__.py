"""HTTP out: the Replicate client, upstream's streams and output files, webhook delivery, the SSRF guard."""
