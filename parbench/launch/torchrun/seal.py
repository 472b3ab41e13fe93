"""The seal of messages between two nodes: it shows who said each, and that none is missing, repeated or changed."""

import hashlib
import hmac
from itertools import count

MAC_BYTES = hashlib.sha256().digest_size


class Seal:
    """Two keys, one a direction, and how many messages went each way."""

    def __init__(self, ours: bytes, theirs: bytes) -> None:
        self._ours, self._sent = ours, count()
        self._theirs, self._received = theirs, count()

    def close(self, content: bytes) -> bytes:
        """Seals the next message of this side."""
        return content + _mac(self._ours, next(self._sent), content)

    def open(self, message: bytes) -> bytes:
        """The content of the other side's next message. Raises `ValueError` where it is not that."""
        content, mac = message[:-MAC_BYTES], message[-MAC_BYTES:]
        if not hmac.compare_digest(mac, _mac(self._theirs, next(self._received), content)):
            raise ValueError("not the seal of the next message")
        return content


def _mac(key: bytes, number: int, content: bytes) -> bytes:
    return hmac.digest(key, number.to_bytes(8) + content, hashlib.sha256)
