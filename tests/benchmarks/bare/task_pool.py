"""A model of its own in every process, each with the whole batch."""

from tests.benchmarks.bare.single import generate, score, train

__all__ = ["generate", "score", "train"]
