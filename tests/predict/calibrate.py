"""Fits the constants to the published rows again, writes them, and prints how far left-out sources lie off.

make calibrate
"""

from importlib import resources
from pathlib import Path

from parbench.predict.cases import cases_of
from parbench.predict.constants import PRIORS
from parbench.predict.fitted import FILE, fit_all, published_fit, write_fitted
from parbench.predict.judge import judge
from parbench.predict.rows import published_rows
from tests.predict.tables import accuracy_table


def main() -> None:
    rows = published_rows()
    cases, _ = cases_of(rows)
    fitted = fit_all(cases)
    with resources.as_file(resources.files("parbench.predict").joinpath(FILE)) as path:
        write_fitted(fitted, Path(path))
    published_fit.cache_clear()
    print("constant, prior, fitted, least and most with a source left out, unit")
    for name, prior in PRIORS.items():
        values = [getattr(each, name) for each in fitted.without.values()]
        numbers = (prior.value, getattr(fitted.constants, name), min(values), max(values))
        print(f"{name:16}", *(f"{number:10.3g}" for number in numbers), prior.unit)
    print(accuracy_table(judge(rows, fitted)))


if __name__ == "__main__":
    main()
