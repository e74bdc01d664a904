"""Several processes of one gateway on one port: `gateway serve --workers` (docs/architecture.md, Nodes)."""
