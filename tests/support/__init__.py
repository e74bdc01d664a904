"""What several tests share: a stack to test in, the tools it needs, and Node clients driven from Python."""
