"""`parbench schema`."""

import click


@click.command
@click.option("--cluster", is_flag=True, help="Of a cluster's file, which parbench predict reads, instead.")
def command(*, cluster: bool) -> None:
    """Print the JSON Schema of a scenario, for editors."""
    import json

    click.echo(json.dumps(_cluster_schema() if cluster else _scenario_schema(), indent=2))


def _scenario_schema() -> dict[str, object]:
    from parbench.plan.reading import catalogue
    from parbench.scenario.schema import scenario_schema

    return scenario_schema(catalogue())


def _cluster_schema() -> dict[str, object]:
    from parbench.predict.clusters import cluster_schema

    return cluster_schema()
