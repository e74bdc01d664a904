"""Interfaces that three or more concepts use."""
