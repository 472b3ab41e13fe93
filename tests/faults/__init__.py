"""Faults that are made to happen for real: a test for each row of the table in CONTRIBUTING.md, named after it."""
