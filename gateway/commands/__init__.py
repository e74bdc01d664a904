"""The commands of the command line, one file for each group. Used by `gateway.cli` only.

Heavy modules are imported inside the functions, so that `--help` and usage errors are fast.
"""
