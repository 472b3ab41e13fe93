"""A digest at the end of a stored JSON object, by which a later change is noticed."""

import re

from parbench.system.digests import digest_of_text

_SEALED = re.compile(r'(.*?),\s*"digest":\s*"([0-9a-f]{64})"\s*\}\s*', re.DOTALL)


def seal(text: str) -> str:
    """The text of a JSON object with one more member, `digest`: the SHA-256 of the text before it."""
    body = text.rstrip().removesuffix("}").rstrip()
    space = "\n " if "\n" in body else ""
    return f'{body},{space}"digest":"{digest_of_text(body)}"{space.rstrip(" ")}}}'


def unseal(text: str) -> tuple[str, str | None]:
    """The JSON object without its digest, and a sentence on what is wrong with the digest; None where it matches."""
    sealed = _SEALED.fullmatch(text)
    if sealed is None:
        return text, "it carries no digest"
    intact = digest_of_text(sealed[1]) == sealed[2]
    return sealed[1] + "}", None if intact else "it was changed after it was written: its digest does not match"
