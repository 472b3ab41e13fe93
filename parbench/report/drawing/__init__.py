"""What charts are made of: canvas, axes, legends, and the bytes of a finished drawing."""
