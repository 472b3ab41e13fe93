"""Where tokens come from, and how they are dealt out."""
