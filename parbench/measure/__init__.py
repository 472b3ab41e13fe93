"""What runs inside the ranks: the measuring loop, its clocks and its probes."""
