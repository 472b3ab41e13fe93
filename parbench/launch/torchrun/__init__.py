"""Ranks under torch's elastic agents, on one host or several."""
