"""Where the time of a step goes: a few steps after the window, under torch's profiler, cut into parts that add up."""
