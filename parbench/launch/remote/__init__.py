"""Launches by another parbench, which has its own interpreter, packages and version."""
