from collections.abc import Iterator

import pytest

from tests.launch.cluster import Cluster, require_slurm


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One SLURM for all tests. Its second node shares no folder with the first below `hidden`."""
    try:
        require_slurm()
        with Cluster(tmp_path_factory.mktemp("slurm"), tmp_path_factory.mktemp("hidden")) as cluster:
            yield cluster
    except LookupError as reason:
        pytest.skip(f"no SLURM here: {reason}")
