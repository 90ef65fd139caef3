"""Pools out again: as files that others can read, with a card that says what they are."""
