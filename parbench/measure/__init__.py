"""What runs inside the ranks of a trial: the measuring loop, its clocks and its probes."""
