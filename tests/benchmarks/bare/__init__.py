"""What an expert would write by hand for each strategy: plain torch, without parbench; one file a strategy.

Every file has a function for each phase (`train`, `score`, `generate`) of the strategy of its name, from a setting to a
step: a function of the step's number.
"""
