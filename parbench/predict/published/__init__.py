"""Measured rows from public sources, facts only, and what else is known of their models and software."""
