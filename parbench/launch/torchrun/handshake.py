"""The handshake of two nodes: both show that they have the same secret, and derive keys that seal later messages.

Each side draws a random number, and sends a message authentication code (MAC, here HMAC-SHA256, RFC 2104) of both
numbers and its own role under the secret. A recorded MAC is useless later because the numbers differ, and a MAC cannot
be sent back to its owner because the roles differ. Two keys, one for each direction, are derived in the same way; they
seal every message with its number, so none can be forged, repeated, left out or sent back. Messages are not encrypted.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from parbench.launch.torchrun.link import Link, LinkError
from parbench.launch.torchrun.messages import CallerProof, Challenge, LeaderProof
from parbench.launch.torchrun.seal import Seal

PROTOCOL = "parbench nodes 1"
NUMBER_BYTES = 32
Role = Literal["leader", "follower"]


class SecretError(LinkError):
    """The peer does not have the same secret."""


@dataclass(frozen=True)
class Handshake:
    """The secret, and the random number of each side."""

    secret: bytes
    leaders: str
    followers: str

    def mac(self, role: Role) -> str:
        """The MAC by which this role shows that it has the secret, in hexadecimal digits."""
        return self._digest(f"{role} proves").hex()

    def verify(self, mac: str, role: Role) -> bool:
        """Whether this is the MAC of the role."""
        return hmac.compare_digest(mac, self.mac(role))

    def seal(self, role: Role) -> Seal:
        """The seal for messages that this role sends, and for those that it receives."""
        other: Role = "follower" if role == "leader" else "leader"
        return Seal(self._digest(f"{role} seals"), self._digest(f"{other} seals"))

    def _digest(self, purpose: str) -> bytes:
        content = "\n".join((PROTOCOL, purpose, self.leaders, self.followers))
        return hmac.digest(self.secret, content.encode(), hashlib.sha256)


def new_number() -> str:
    """A random number that was never used before, in hexadecimal digits."""
    return secrets.token_hex(NUMBER_BYTES)


def authenticate(link: Link, secret: bytes, timeout_s: float) -> None:
    """The follower's side of the handshake; it seals all later messages. Raises `SecretError` if secrets differ."""
    handshake = Handshake(secret, link.expect(Challenge, timeout_s).number, new_number())
    link.send(CallerProof(number=handshake.followers, mac=handshake.mac("follower")))
    mac = link.expect(LeaderProof, timeout_s).mac
    if mac is None or not handshake.verify(mac, "leader"):
        raise SecretError("has another secret than this node")
    link.seal(handshake.seal("follower"))
