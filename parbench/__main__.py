"""`python -m parbench` is `parbench`."""

from parbench.cli import main

main()
