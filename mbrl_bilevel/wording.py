"""Counts as parts of sentences."""


def counted(count: int, noun: str) -> str:
    """The number and its noun, which takes an s unless the number is 1: "1 episode", "0 steps"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
