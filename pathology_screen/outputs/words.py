"""The outcomes in words."""

OUTCOMES = {"suspicious": ("▲", "Suspicious"), "normal": ("●", "Normal"), "not_assessable": ("✕", "Not assessable")}
"""Outcome -> a sign, so that it does not hang on a colour, and a word."""
