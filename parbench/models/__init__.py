"""Model families, and models that people bring."""
