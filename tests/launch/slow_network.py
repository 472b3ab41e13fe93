"""Runs scenarios/slow_network.yaml between two emulated hosts, once for each rate of their link.

`python -m tests.launch.slow_network [RATE…]` needs root and Linux; it stores results/stored/slow_network-RATE-2-hosts.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.launch.hosts import hosts, together

REPOSITORY = Path(__file__).parents[2]
SCENARIO = Path("scenarios/slow_network.yaml")
RATES = ("10gbit", "1gbit", "200mbit", "50mbit")


def measure(rate: str, *arguments: str) -> Path:
    """One run at a rate; the folder that it is stored in. What node 0 says goes to this terminal."""
    name = f"slow_network-{rate}-2-hosts"
    stored = REPOSITORY / "results" / "stored" / name
    with tempfile.TemporaryDirectory() as scratch, hosts(2, Path(scratch), rate) as found:
        for host in found:
            (host.folder / SCENARIO.parent).mkdir()
            shutil.copy(REPOSITORY / SCENARIO, host.folder / SCENARIO)
        nodes = together(found, SCENARIO, "--out", name, *arguments)
        said = [node.communicate() for node in nodes]
        for node, (out, err) in zip(nodes, said, strict=True):
            if node.returncode not in (0, 3):
                sys.exit(err)
            print(out, err, sep="\n")
        stored.mkdir(parents=True, exist_ok=True)
        for file in ("run.json", "trials.jsonl"):
            shutil.copy(found[0].folder / name / file, stored / file)
    return stored


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RATES:
        print(measure(wanted))
