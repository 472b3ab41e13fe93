"""Exit codes of parbench's commands, in one place."""

OK = 0
REGRESSION = 1
"""Nothing else has this code, so that CI can trust it."""
BAD_USAGE = 2
"""A wrong option, a scenario with mistakes, or results that cannot be read or written."""
CELL_FAILED = 3
"""Also where nothing was measured."""
NO_BASELINE = 4
"""Also where the baseline is from another environment."""
INCONCLUSIVE = 5
"""Noise hides the changes that the scenario asks to detect; only with `--strict`."""
DEFECT = 70
"""An error in parbench itself: `EX_SOFTWARE` of sysexits.h. Python's own code would be 1, which means a regression."""
