"""Model families and data. Each family is one file; importing them needs no torch."""
