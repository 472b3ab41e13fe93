"""The torch side of a workload: its model, its batches, its optimizer, its loss. Runs inside the ranks."""
