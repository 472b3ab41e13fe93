"""Ranks as tasks of a SLURM allocation."""
