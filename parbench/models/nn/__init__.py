"""Torch modules of the built-in families."""
