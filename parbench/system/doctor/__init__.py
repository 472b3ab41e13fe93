"""The doctor: what this machine is, and what would disturb a measurement on it."""
