"""`python -m parbench` is `parbench`."""

import sys

from parbench.system.exit_codes import DEFECT

try:
    from parbench.cli.main import main
except Exception:  # noqa: BLE001 - the traceback is printed; Python's own exit code would be 1, that of a regression
    import traceback

    traceback.print_exc()
    sys.exit(DEFECT)

if __name__ == "__main__":
    main()
