"""What parbench computes from records: each figure's formula and meaning."""
