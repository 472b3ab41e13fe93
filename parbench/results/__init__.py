"""Records of what was measured, and tables made from them. No torch."""
