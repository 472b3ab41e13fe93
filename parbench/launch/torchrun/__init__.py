"""Ranks under torch's elastic agents, on one node or several."""
