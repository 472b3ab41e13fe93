"""A scenario on a machine: its cells, or the reasons why there are none."""
