"""What the command line does, one file for each group of commands. Known to `gateway.cli` only.

Whatever is heavy is imported inside the functions, so that `--help` and typing errors are answered at once.
"""
