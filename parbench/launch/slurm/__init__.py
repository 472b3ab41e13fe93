"""Ranks as tasks in a SLURM allocation."""
