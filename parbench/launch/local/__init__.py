"""Ranks as processes on this host."""
