"""`python -m parbench` is `parbench`."""

import sys
import traceback

try:
    from parbench.cli.main import main
except Exception:  # noqa: BLE001 - it ends here, with its traceback
    traceback.print_exc()
    sys.exit(70)  # a defect, as in `parbench.cli.main`; Python would say 1, which a regression says here

if __name__ == "__main__":
    main()
