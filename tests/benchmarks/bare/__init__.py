"""What an expert would write by hand for each strategy: plain torch, without parbench; one file a strategy.

Every file has `build(setting)`, which returns a step: a function of the step's number. `python -m
tests.benchmarks.bare single lstm TOKENS` runs one on one device; torchrun, with `-m`, on several.
"""
