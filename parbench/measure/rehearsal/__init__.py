"""A rank that is not there: its strategy is set up and takes steps on fake tensors, among ranks that say nothing."""
