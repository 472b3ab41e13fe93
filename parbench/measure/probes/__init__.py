"""What a rank measures besides the times and losses of its steps."""
