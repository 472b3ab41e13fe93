"""What comes over a network, from whomever: a message, or a sentence within its time."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parbench.launch.slurm.messages import MESSAGE
from parbench.launch.torchrun import link as links
from parbench.launch.torchrun.greeting import find_version_mismatch, parse_greeting
from parbench.launch.torchrun.link import Link, LinkError, connect
from parbench.launch.torchrun.messages import Over
from tests.launch.test_gathering import greeting
from tests.support.waiting import PATIENCE_S, wait_for

OURS = greeting(0)
KINDS = st.sampled_from(["greeting", "welcome", "order", "end", "report", "over", "ready", "part", "ended"])
FIELDS = st.sampled_from([*type(OURS).model_fields, *("rank", "file", "content", "reason", "logs", "exit_codes")])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | KINDS
NESTED = st.lists(VALUES, max_size=3) | st.dictionaries(FIELDS, VALUES, max_size=3)
# Any object there is, and greetings of which one field is wrong.
OBJECTS = st.dictionaries(FIELDS, VALUES | NESTED, max_size=6)
ALMOST = st.builds(lambda field, value: {**OURS.model_dump(mode="json"), field: value}, FIELDS, VALUES | NESTED)


@contextmanager
def linked() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the other end of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = connect("127.0.0.1", server.getsockname()[1], PATIENCE_S)
        peer, _ = server.accept()
    with peer:
        yield link, peer
    link.close()


@given(said=st.binary() | (OBJECTS | ALMOST).map(lambda message: json.dumps(message).encode()))
def test_whatever_is_sent_is_a_message_or_a_sentence(said):
    with suppress(LinkError):
        if find_version_mismatch(OURS, said) is None:
            parse_greeting(said)
    with suppress(ValidationError):
        MESSAGE.validate_json(said)
    with linked() as (link, peer), suppress(LinkError):
        peer.sendall(len(said).to_bytes(4) + said)
        link.message(PATIENCE_S)


@pytest.mark.parametrize("limit", [0.2, None])
@pytest.mark.parametrize("begun", [b"\0\0", b"\0\0\0\x09{"])
def test_a_message_that_is_begun_and_never_ends_is_given_up(monkeypatch, begun, limit):
    with linked() as (link, peer):
        monkeypatch.setattr(links, "SILENCE_S", 0.2)
        peer.sendall(begun)
        with pytest.raises(LinkError, match="did not send a whole message in time"):
            link.receive(limit)


def test_a_peer_that_does_not_listen_is_given_up(monkeypatch):
    monkeypatch.setattr(links, "SENDING_S", 0.2)
    with linked() as (link, _), pytest.raises(LinkError, match="did not answer"):
        link.send(Over(reason="x" * 2**26))


def test_a_peer_that_has_gone_is_noticed_before_its_last_words_are_read():
    with linked() as (link, peer):
        assert not link.hung_up
        peer.sendall(b"\0\0\0\x10" + b'{"kind": "over"}')
        assert not link.hung_up
        peer.close()
        wait_for(lambda: link.hung_up, "the end of the peer")
        assert link.expect(Over, PATIENCE_S).reason is None


def test_a_message_that_is_none_is_an_error_and_is_never_run():
    with linked() as (link, peer):
        peer.sendall(b"\0\0\0\6cos\nx.")
        with pytest.raises(LinkError, match="sent something that is not a message"):
            link.message(PATIENCE_S)
        peer.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(LinkError, match="sent something that is not a message"):
            link.message(PATIENCE_S)
        peer.close()
        with pytest.raises(LinkError, match="hung up") as caught:
            link.message(PATIENCE_S)
        assert caught.value.hung_up
