"""What a rank measures beside its steps."""
