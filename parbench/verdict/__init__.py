"""What a run's data say of its cells: who is fastest, who needs least memory, what loses, what cannot be judged."""
