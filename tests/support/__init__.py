"""What several tests share: a house to test in, the tools it needs, and Node clients driven from Python."""
