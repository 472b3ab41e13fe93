"""Stored runs as one offline page and as charts. Reads what `parbench.results` made; torch is never imported."""
