"""Launchers: they run a cell in fresh processes and collect the records of its ranks."""
