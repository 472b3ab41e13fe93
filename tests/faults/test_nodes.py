"""Faults of a network between nodes: whoever else can reach the rendezvous, in whatever number and manner."""

import itertools
import json
import os
import secrets
import socket
import subprocess
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

from parbench.launch.torchrun.handshake import authenticate
from parbench.launch.torchrun.link import Link, LinkError
from tests.conftest import CommandLine
from tests.faults.scenarios import scenario, trials_of

PATIENCE_S = 600.0
CALLS = 20_000
PAUSE_S = 0.002
OPEN_CALLS = 150
CPU = min(os.sched_getaffinity(0))


class Relay:
    """Stands between a node and the rendezvous at `port`, and keeps what the node says on each connection."""

    def __init__(self, port: int) -> None:
        self._rendezvous = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.recordings: list[bytearray] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                node = self._server.accept()[0]
                try:
                    leader = socket.create_connection(("127.0.0.1", self._rendezvous))
                except ConnectionRefusedError:  # it has not begun to listen
                    node.close()
                    continue
                recording = bytearray()
                self.recordings.append(recording)
                for source, target, kept in ((node, leader, recording), (leader, node, bytearray())):
                    self._threads.append(threading.Thread(target=self._pass_on, args=(source, target, kept)))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                kept += piece
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        """Once the nodes have ended."""
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()


class Strangers:
    """Call at a port, one after another and in every manner, until they are ended; `calls` counts them by manner."""

    def __init__(self, port: int, relay: Relay) -> None:
        self._port, self._relay = port, relay
        self._over = threading.Event()
        self._open: deque[socket.socket] = deque()
        self.calls: Counter[str] = Counter()
        self.replies: set[bytes] = set()
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        for each in self._open:
            each.close()

    def _call(self) -> None:
        manners = itertools.cycle((self._wait, self._begin, self._drip, self._babble, self._guess, self._replay))
        for manner in itertools.islice(manners, CALLS):
            if self._over.wait(PAUSE_S):
                return
            with suppress(OSError):  # nobody listens yet, or it was shown the door
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S)
                self._open.append(connection)
                manner(connection)
                self.calls[manner.__name__] += 1
            while len(self._open) > OPEN_CALLS:
                self._open.popleft().close()

    def _wait(self, connection: socket.socket) -> None:
        """Says nothing."""

    def _begin(self, connection: socket.socket) -> None:
        connection.sendall(b"\0\0\0\x7f{")

    def _drip(self, connection: socket.socket) -> None:
        """A byte more on every connection that is open."""
        for each in self._open:
            with suppress(OSError):
                each.sendall(b"\0")

    def _babble(self, connection: socket.socket) -> None:
        connection.sendall(secrets.token_bytes(5000))

    def _guess(self, connection: socket.socket) -> None:
        with suppress(LinkError):
            authenticate(Link(connection), secrets.token_bytes(32), PATIENCE_S)

    def _replay(self, connection: socket.socket) -> None:
        """All that the node has said at the beginning of a connection of its own."""
        for recording in [bytes(each) for each in self._relay.recordings if each][-1:]:
            connection.sendall(recording)
            while piece := connection.recv(4096):  # until it is shown the door
                self.replies.add(piece)


def test_row_41_strangers_at_the_rendezvous(parbench_with_plugins: CommandLine) -> None:
    parbench, secret = parbench_with_plugins, secrets.token_hex(32)
    path = parbench.folder / "secret"
    path.write_text(secret)
    path.chmod(0o600)
    (parbench.folder / "faults.yaml").write_text(scenario("single", "averaging").replace("rounds: 1", "rounds: 2"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    relay = Relay(port)
    strangers = Strangers(port, relay)
    try:
        nodes = [start(parbench, node, port if node == 0 else relay.port, path) for node in range(2)]
        ends = [(*node.communicate(timeout=PATIENCE_S), node.returncode) for node in nodes]
    finally:
        strangers.end()
        relay.close()
    assert [code for *_, code in ends] == [0, 0], ends
    trials = trials_of(parbench.folder / "out")
    assert {trial["status"] for trial in trials} == {"ok"}
    assert Counter(trial["purpose"] for trial in trials)["measure"] == 4
    assert {rank["node"] for trial in trials for rank in trial["ranks"]} == {0, 1}
    assert min(strangers.calls.values()) > 10, strangers.calls
    assert len(strangers.calls) == 6
    assert any(b'"mac":null' in reply for reply in strangers.replies)
    assert not any(b'"welcome"' in reply for reply in strangers.replies)
    texts = [text.encode() for text, *_ in ends] + [text.encode() for _, text, _ in ends]
    texts += [file.read_bytes() for file in (parbench.folder / "out").rglob("*") if file.is_file()]
    texts += [bytes(each) for each in relay.recordings]
    assert not any(secret.encode() in text for text in texts)
    command = json.loads((parbench.folder / "out" / "run.json").read_text())["command"]
    assert command[command.index("--secret-file") + 1] == str(path)


def start(parbench: CommandLine, node: int, port: int, secret: Path) -> subprocess.Popen[str]:
    """A node on one core, so that two devices are two nodes."""
    where = ["--launcher", "torchrun", "--nodes", 2, "--node-rank", node, "--rendezvous", f"127.0.0.1:{port}"]
    words = parbench.command("run", "faults.yaml", "--out", "out", *where, "--secret-file", secret)
    return subprocess.Popen(
        ["taskset", "--cpu-list", str(CPU), *words],
        cwd=parbench.folder,
        env=parbench.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
