"""Model families, and models that users bring."""
