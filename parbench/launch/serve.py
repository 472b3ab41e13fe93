"""The other end of `parbench.launch.arm`: launches what it is asked to, in this interpreter and with its packages.

It is handed to an interpreter as text, so that an older parbench there can be compared with this one.
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from parbench.environment import capture
from parbench.launch.local import LocalLauncher
from parbench.strategies.base import STRATEGIES
from parbench.workloads.base import FAMILIES

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with(parent: int) -> None:
    """Has the kernel end this process with its parent: whoever waits for a trial does not see its input end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        sys.exit(1)


def serve() -> None:
    """A greeting that says what is here, then an outcome for every request, a JSON line each, until input ends."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a plug-in prints is no reply
    launcher = LocalLauncher()
    launcher.start()
    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    modules = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    greeting = {"environment": capture().model_dump(mode="json"), "modules": modules}
    print(json.dumps(greeting), file=replies, flush=True)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            folder = Path(request.pop("folder"))
            print(json.dumps(asdict(launcher.launch(folder, **request))), file=replies, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        launcher.close()


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    serve()
