"""parbench: which way of spreading a language model over your devices is fastest, measured."""

__version__ = "0.1.0"
