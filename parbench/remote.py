"""The door that another parbench finds in every version of this one: `python -m parbench.remote`. It never moves."""

import sys

from parbench.launch.remote.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
