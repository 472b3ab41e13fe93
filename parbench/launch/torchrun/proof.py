"""How two nodes prove to each other that they have the same secret, and seal what they say from then on.

Each draws a number that was never there before, and shows a MAC of both numbers and of its own role under the secret:
what somebody has recorded proves nothing later, and nobody's own proof can be held up to them. From the same come two
keys, one a direction, which seal every message with its number: none can be forged, repeated, left out or turned
around. Messages are not encrypted.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from parbench.launch.torchrun.link import Link, LinkError
from parbench.launch.torchrun.messages import Answer, Challenge, Proof
from parbench.launch.torchrun.seal import Seal

PROTOCOL = "parbench nodes 1"


NUMBER_BYTES = 32


Role = Literal["leader", "follower"]


class SecretError(LinkError):
    """The peer does not have the same secret."""


@dataclass(frozen=True)
class Exchange:
    """The secret, and the number that either has drawn."""

    secret: bytes
    leaders: str
    followers: str

    def proof(self, role: Role) -> str:
        """What shows that who has this role has the secret."""
        return self._mac(f"{role} proves").hex()

    def proves(self, mac: str, role: Role) -> bool:
        """Whether a MAC is that proof."""
        return hmac.compare_digest(mac, self.proof(role))

    def seal(self, role: Role) -> Seal:
        """What seals the messages of who has this role, and opens those of the other."""
        other: Role = "follower" if role == "leader" else "leader"
        return Seal(self._mac(f"{role} seals"), self._mac(f"{other} seals"))

    def _mac(self, purpose: str) -> bytes:
        content = "\n".join((PROTOCOL, purpose, self.leaders, self.followers))
        return hmac.digest(self.secret, content.encode(), hashlib.sha256)


def new_number() -> str:
    """A number that was never there before."""
    return secrets.token_hex(NUMBER_BYTES)


def prove(link: Link, secret: bytes, timeout_s: float) -> None:
    """The follower's side, whose messages are sealed from then on. Raises `SecretError` where secrets differ."""
    exchange = Exchange(secret, link.expect(Challenge, timeout_s).number, new_number())
    link.send(Proof(number=exchange.followers, mac=exchange.proof("follower")))
    mac = link.expect(Answer, timeout_s).mac
    if mac is None or not exchange.proves(mac, "leader"):
        raise SecretError("has another secret than this node")
    link.seal(exchange.seal("follower"))
