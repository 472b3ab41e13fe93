"""`parbench schema`."""

import click


@click.command
def command() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    import json

    from parbench.plan.reading import catalogue
    from parbench.scenario.schema import scenario_schema

    click.echo(json.dumps(scenario_schema(catalogue()), indent=2))
