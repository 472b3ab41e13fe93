"""A digest at the end of a stored JSON object tells whether somebody changed it since."""

import re

from parbench.system.digests import digest_of_text

_SEALED = re.compile(r'(.*?),\s*"digest":\s*"([0-9a-f]{64})"\s*\}\s*', re.DOTALL)


def seal(text: str) -> str:
    """The text of a JSON object with one more member, `digest`: the SHA-256 of what stands before it."""
    body = text.rstrip().removesuffix("}").rstrip()
    space = "\n " if "\n" in body else ""
    return f'{body},{space}"digest":"{digest_of_text(body)}"{space.rstrip(" ")}}}'


def unseal(text: str) -> tuple[str, str | None]:
    """The JSON object without its digest, and what is wrong with that; None where it is that of the text before it."""
    found = _SEALED.fullmatch(text)
    if found is None:
        return text, "it carries no digest"
    right = digest_of_text(found[1]) == found[2]
    return found[1] + "}", None if right else "it was changed after it was written: its digest does not match"
