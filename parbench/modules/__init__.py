"""The torch modules that the built-in model families are made of."""
