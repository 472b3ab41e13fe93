"""Two nodes that have one secret, and whoever has not: what was recorded, turned around or made up proves nothing."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parbench.errors import UsageError
from parbench.launch.base import Campaign
from parbench.launch.fork_server import ForkServer
from parbench.launch.torchrun.follower import NodeFollower
from parbench.launch.torchrun.handshake import Handshake, SecretError, authenticate, new_number
from parbench.launch.torchrun.leader import Leader
from parbench.launch.torchrun.link import Link, LinkError
from parbench.launch.torchrun.messages import CallerProof, Challenge, LeaderProof, NodeGreeting, Over
from parbench.launch.torchrun.reception import Reception
from parbench.launch.torchrun.seal import Seal
from parbench.system.devices import Machine
from tests.launch.test_gathering import PATIENCE_S, SECRET, greeting


@contextmanager
def receiving(secret: bytes = SECRET) -> Iterator[tuple[Reception, int]]:
    """A reception, and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    reception = Reception(listener, secret)
    yield reception, listener.getsockname()[1]
    reception.close()


def call(port: int) -> Link:
    return Link(socket.create_connection(("127.0.0.1", port)))


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def test_nodes_with_one_secret_talk_and_those_with_another_do_not():
    with receiving() as (reception, port):
        node = call(port)
        authenticate(node, SECRET, PATIENCE_S)
        node.send(greeting(1))
        link, said = reception.next(PATIENCE_S) or pytest.fail("nobody came")
        assert NodeGreeting.model_validate_json(said).node == 1
        link.send(Over(reason="it ends"))
        assert node.expect(Over, PATIENCE_S).reason == "it ends"
        stranger = call(port)
        with pytest.raises(SecretError, match="has another secret than this node"):
            authenticate(stranger, SECRET + b"!", PATIENCE_S)
        assert (reception.failures, reception.failure_host) == (1, "127.0.0.1")
        for each in (node, link, stranger):
            each.close()


def test_where_secrets_differ_both_sides_say_so():
    with receiving() as (reception, port):
        follower = NodeFollower(ForkServer(), 1, "127.0.0.1", port, PATIENCE_S, SECRET + b"!")
        campaign = Campaign(scenario={}, folder=Path(), corpora={}, machine=Machine(cores=((0,),)))
        with pytest.raises(UsageError) as caught:
            follower.follow(campaign)
        place = f"127.0.0.1:{port}"
        advice = "give all nodes the same --secret-file or PARBENCH_SECRET"
        assert str(caught.value) == f"the rendezvous {place} has another secret than this node; {advice}"
        hint = "Callers with another secret: 1, the last of them at 127.0.0.1; give every node the same"
        with pytest.raises(UsageError, match=hint):
            Leader(reception, greeting(0)).gather(0.0)


def test_a_node_0_that_does_not_have_the_secret_is_none():
    for mac in (None, "0" * 64):
        with socket.create_server(("127.0.0.1", 0)) as server:
            node = call(server.getsockname()[1])
            other = Link(server.accept()[0])
        other.send(Challenge(number=new_number()))
        other.send(LeaderProof(mac=mac))
        with pytest.raises(SecretError):
            authenticate(node, SECRET, PATIENCE_S)
        node.close()
        other.close()


def test_a_proof_that_was_recorded_is_none_for_the_next_challenge():
    with receiving() as (_, port):
        node = call(port)
        number = node.expect(Challenge, PATIENCE_S).number
        handshake = Handshake(SECRET, number, new_number())
        proof = CallerProof(number=handshake.followers, mac=handshake.mac("follower"))
        node.send(proof)
        assert node.expect(LeaderProof, PATIENCE_S).mac == handshake.mac("leader")
        again = call(port)
        assert again.expect(Challenge, PATIENCE_S).number != number
        again.send(proof)
        assert again.expect(LeaderProof, PATIENCE_S).mac is None
        node.close()
        again.close()


def test_a_proof_of_the_other_side_is_none():
    with receiving() as (_, port):
        node = call(port)
        handshake = Handshake(SECRET, node.expect(Challenge, PATIENCE_S).number, new_number())
        node.send(CallerProof(number=handshake.followers, mac=handshake.mac("leader")))
        assert node.expect(LeaderProof, PATIENCE_S).mac is None
        node.close()


def test_numbers_and_keys_are_new_every_time():
    one, other = Handshake(SECRET, new_number(), new_number()), Handshake(SECRET, new_number(), new_number())
    macs = [handshake.mac(role) for handshake in (one, other) for role in ("leader", "follower")]
    assert len({one.leaders, one.followers, other.leaders, other.followers, *macs}) == 8
    assert Handshake(SECRET, one.followers, one.leaders).mac("leader") != one.mac("leader")


def sealed() -> tuple[Seal, Seal]:
    handshake = Handshake(SECRET, new_number(), new_number())
    return handshake.seal("leader"), handshake.seal("follower")


def change(message: bytes) -> bytes:
    return bytes([message[0] ^ 1]) + message[1:]


def shorten(message: bytes) -> bytes:
    return message[1:]


def test_a_sealed_message_is_opened_by_the_other_side():
    leader, follower = sealed()
    for content in (b"first", b"", b"third"):
        message = leader.close(content)
        assert message.startswith(content)  # it is not encrypted
        assert follower.open(message) == content
        assert leader.open(follower.close(content)) == content


@pytest.mark.parametrize("spoil", [change, shorten, lambda message: message[:-1], lambda message: b""])
def test_a_sealed_message_that_was_changed_is_not_opened(spoil):
    leader, follower = sealed()
    with pytest.raises(ValueError, match="not the seal of the next message"):
        follower.open(spoil(leader.close(b"first")))


def test_a_sealed_message_is_opened_once_in_its_place_and_by_the_other_side_alone():
    leader, follower = sealed()
    with pytest.raises(ValueError, match="not the seal of the next message"):
        follower.open(follower.close(b"turned around"))
    leader, follower = sealed()
    message = leader.close(b"repeated")
    follower.open(message)
    with pytest.raises(ValueError, match="not the seal of the next message"):
        follower.open(message)
    leader, follower = sealed()
    leader.close(b"left out")
    with pytest.raises(ValueError, match="not the seal of the next message"):
        follower.open(leader.close(b"second"))


def test_what_is_not_sealed_is_not_believed_after_the_proof():
    with receiving() as (reception, port):
        node = call(port)
        authenticate(node, SECRET, PATIENCE_S)
        node.send(greeting(1))
        link, _ = reception.next(PATIENCE_S) or pytest.fail("nobody came")
        link._socket.sendall(frame(json.dumps({"kind": "over"}).encode()))
        with pytest.raises(LinkError, match="sent a message with an invalid seal"):
            node.expect(Over, PATIENCE_S)
        node.close()
        link.close()
