"""The seal of messages between two nodes: it shows that none is forged, missing, repeated or changed."""

import hashlib
import hmac
from itertools import count

MAC_BYTES = hashlib.sha256().digest_size


class Seal:
    """A key for each direction, and the number of the next message in each."""

    def __init__(self, own_key: bytes, peer_key: bytes) -> None:
        self._own_key, self._sent = own_key, count()
        self._peer_key, self._received = peer_key, count()

    def close(self, content: bytes) -> bytes:
        """Seals the next message that this side sends."""
        return content + _mac(self._own_key, next(self._sent), content)

    def open(self, message: bytes) -> bytes:
        """The content of the peer's next message. Raises `ValueError` if the message is any other."""
        content, mac = message[:-MAC_BYTES], message[-MAC_BYTES:]
        if not hmac.compare_digest(mac, _mac(self._peer_key, next(self._received), content)):
            raise ValueError("not the seal of the next message")
        return content


def _mac(key: bytes, number: int, content: bytes) -> bytes:
    return hmac.digest(key, number.to_bytes(8) + content, hashlib.sha256)
