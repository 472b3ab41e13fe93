"""SHA-256 digests, as hexadecimal digits."""

import hashlib
import json


def digest_of_bytes(content: bytes) -> str:
    """The digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_of_text(text: str) -> str:
    """The digest of a text in UTF-8."""
    return digest_of_bytes(text.encode())


def digest_of_json(content: object) -> str:
    """The digest of JSON data; the order of an object's members does not matter."""
    return digest_of_text(json.dumps(content, sort_keys=True))
