"""Launches by another parbench, with its own interpreter, packages and version."""
