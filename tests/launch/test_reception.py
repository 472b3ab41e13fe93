"""Strangers at the rendezvous, in whatever number and however slow: a node comes in beside them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from parbench.launch.torchrun import reception as receptions
from parbench.launch.torchrun.handshake import authenticate
from parbench.launch.torchrun.link import LateError, Link, LinkError
from parbench.launch.torchrun.reception import MAX_STRANGERS, PROOF_BYTES, Caller, Reception, choose_to_drop
from tests.launch.test_gathering import PATIENCE_S, SECRET, greeting
from tests.launch.test_handshake import call, receiving

FLOOD = 1000


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers may stay as long as a test takes."""
    for name in ("PROVING_S", "GREETING_S"):
        monkeypatch.setattr(receptions, name, 2 * PATIENCE_S)


def connect(port: int, said: bytes = b"") -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    stranger.sendall(said)
    return stranger


def drip(stranger: socket.socket, size: int) -> None:
    for _ in range(size):
        stranger.sendall(b"{")
        time.sleep(0.1)


def is_dropped(stranger: socket.socket) -> bool:
    """Waits for the end of what the reception says to it."""
    try:
        while stranger.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def enter(port: int) -> Link:
    """What a follower does: it calls again where it had to make room."""
    until = time.monotonic() + PATIENCE_S
    while True:
        link = call(port)
        try:
            authenticate(link, SECRET, PATIENCE_S)
        except LinkError:
            link.close()
            assert time.monotonic() < until
        else:
            link.send(greeting(1))
            return link


def require_entry(reception: Reception, port: int) -> None:
    """A node comes in."""
    node = enter(port)
    arrival = reception.next(PATIENCE_S)
    assert arrival is not None
    arrival[0].close()
    node.close()


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\x7f{", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
def test_half_open_callers_hold_up_nobody(patient, said):
    with receiving() as (reception, port), ExitStack() as strangers:
        for _ in range(20):
            strangers.enter_context(connect(port, said))
        require_entry(reception, port)
        assert not reception.is_busy


def test_a_stranger_that_goes_on_slowly_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(receptions, "PROVING_S", 0.5)
    with receiving() as (_, port), connect(port, PROOF_BYTES.to_bytes(4)) as stranger, pytest.raises(ConnectionError):
        drip(stranger, PROOF_BYTES - 1)


def test_a_stranger_who_announces_more_than_a_proof_goes_at_once(patient):
    with receiving() as (_, port), connect(port, (PROOF_BYTES + 1).to_bytes(4)) as stranger:
        assert is_dropped(stranger)


def test_where_too_many_strangers_are_the_oldest_goes_first(patient):
    with receiving() as (_, port), ExitStack() as stack:
        strangers = [stack.enter_context(connect(port)) for _ in range(MAX_STRANGERS)]
        assert all(stranger.recv(1) for stranger in strangers)
        assert stack.enter_context(connect(port)).recv(1)
        assert is_dropped(strangers[0])
        strangers[1].settimeout(0.2)
        assert not is_dropped(strangers[1])


@contextmanager
def somebody(*hosts: str) -> Iterator[list[Caller]]:
    ends = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in hosts]
    yield [Caller(Link(end), host) for end, host in zip(ends, hosts, strict=True)]
    for end in ends:
        end.close()


def test_a_flood_from_one_host_drives_out_itself():
    with somebody("node", "flood", "flood", "other", "flood") as callers:
        assert choose_to_drop(callers) is callers[1]
    with somebody("node", "node") as callers:
        assert choose_to_drop(callers) is callers[0]


def test_a_node_that_has_proven_itself_is_not_driven_out(patient):
    with receiving() as (reception, port), ExitStack() as stack:
        node = call(port)
        authenticate(node, SECRET, PATIENCE_S)
        assert reception.is_busy
        for _ in range(2 * MAX_STRANGERS):
            assert stack.enter_context(connect(port)).recv(1)
        node.send(greeting(1))
        arrival = reception.next(PATIENCE_S)
        assert arrival is not None
        arrival[0].close()
        node.close()


def test_a_node_comes_in_through_a_flood(patient):
    def flood(port: int) -> None:
        strangers: list[socket.socket] = []
        for _ in range(FLOOD):
            strangers.append(connect(port, b"\0\0\0\x7f{"))
            if len(strangers) > MAX_STRANGERS:
                strangers.pop(0).close()
        for stranger in strangers:
            stranger.close()

    with receiving() as (reception, port):
        flooding = threading.Thread(target=flood, args=(port,))
        flooding.start()
        for _ in range(5):
            require_entry(reception, port)
        flooding.join()
        require_entry(reception, port)


def test_all_callers_are_let_go_at_the_end(patient):
    with receiving() as (_, port):
        strangers = [connect(port) for _ in range(3)]
        assert all(stranger.recv(1) for stranger in strangers)
        node = enter(port)
    assert all(map(is_dropped, strangers))
    with pytest.raises(LinkError) as caught:
        node.receive(PATIENCE_S)
    assert not isinstance(caught.value, LateError)
    for each in (*strangers, node):
        each.close()
