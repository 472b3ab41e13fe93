"""Where routers send tokens, in models that have experts."""

from parbench.base_types import Record


class RoutingRecord(Record):
    """Where the routers of a rank sent its tokens in a step.

    `choices` has for each layer with experts how many tokens chose each expert, `dropped` how many of all choices found
    no room.
    """

    choices: tuple[tuple[int, ...], ...]
    dropped: int = 0
