"""Nodes that cannot measure together: each mistake is a sentence, here over loopback and without torch."""

import re
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from parbench.errors import UsageError
from parbench.launch.base import LAUNCHERS, Campaign, Site
from parbench.launch.choice import choose
from parbench.launch.fork_server import ForkServer
from parbench.launch.torchrun import follower, leader
from parbench.launch.torchrun.follower import NodeFollower
from parbench.launch.torchrun.greeting import greet
from parbench.launch.torchrun.handshake import Handshake, authenticate, new_number
from parbench.launch.torchrun.launcher import TorchrunLauncher
from parbench.launch.torchrun.leader import Leader
from parbench.launch.torchrun.link import Link, LinkError, connect
from parbench.launch.torchrun.messages import CallerProof, Challenge, LeaderProof, NodeGreeting, Over, Welcome
from parbench.launch.torchrun.reception import Reception
from parbench.records.corpus import Corpus
from parbench.system.devices import Machine
from tests.support.waiting import PATIENCE_S

STRANGE = [
    b"null",
    b"[" * 100_000,
    b'{"node": Infinity, "parbench": "1"}',
    b'{"node": 1e999, "parbench": "1"}',
    b"\xff" * 9,
]
SECRET = b"the secret of these nodes, and of no others"
CORPUS = Corpus(path="a", sha256="0" * 64, tokens=9, vocab_size=9, dtype="uint8")
SCENARIO = {"name": "gathering", "devices": {"cores_per_device": 1}}


def greeting(node: int, nodes: int = 2, **changes: object) -> NodeGreeting:
    machine = Machine(cores=((0,),), nodes=nodes)
    campaign = Campaign(scenario=SCENARIO, folder=Path(), corpora={"lstm": CORPUS}, machine=machine)
    return greet(campaign, node, "127.0.0.1").model_copy(update={"session": f"of node {node}", **changes})


class Gathering:
    """A node 0 that waits in a thread, and what others hear from it."""

    def __init__(self, nodes: int = 2, timeout_s: float = PATIENCE_S, early: Sequence[NodeGreeting] = ()) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.leader = Leader(Reception(listener, SECRET), greeting(0, nodes))
        self.refusal = ""
        self._links: list[Link] = []
        self.early = [self.call(each) for each in early]
        """Links of those that are there before node 0 begins to wait."""
        self._thread = threading.Thread(target=self._gather, args=(timeout_s,))
        self._thread.start()

    def _gather(self, timeout_s: float) -> None:
        try:
            self.leader.gather(timeout_s)
        except UsageError as error:
            self.refusal = str(error)

    def call(self, said: NodeGreeting):
        link = connect("127.0.0.1", self.port, PATIENCE_S)
        self._links.append(link)
        authenticate(link, SECRET, PATIENCE_S)
        link.send(said)
        return link

    def join(self) -> None:
        """Until node 0 waits no longer."""
        self._thread.join()

    def end(self) -> str:
        self.join()
        self.leader.close(None)
        for link in self._links:
            link.close()
        return self.refusal


def test_nodes_that_agree_are_welcome_and_their_differences_are_noted():
    gathering = Gathering()
    theirs = greeting(1)
    speed = theirs.environment.speed.model_copy(update={"cpu_model": "another"})
    there = theirs.model_copy(update={"environment": theirs.environment.model_copy(update={"speed": speed})})
    link = gathering.call(there.model_copy(update={"time": there.time + 3600}))
    assert link.expect(Welcome, PATIENCE_S).refusal is None
    assert gathering.end() == ""
    record = gathering.leader.records[1]
    assert record.differs == ("cpu_model",)
    assert 3500 < record.clock_offset_s < 3700


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parbench": "0.0.1"}, r"node 1 has parbench 0\.0\.1, node 0 \(.+\) has parbench .+; install the same"),
        ({"torch": "1.0"}, r"node 1 has torch 1\.0, node 0 \(.+\) has torch .+; install the same"),
        ({"code": "f" * 16}, r"node 1 \(.+\) has other code than node 0"),
        ({"scenario": "f" * 64}, r"node 1 \(.+\) has another scenario"),
        ({"corpora": {"lstm": "f" * 64}}, r"the data of lstm on node 1 \(.+\) differs from that on node 0"),
        ({"devices": {"cpu": 9, "cuda": 0}}, r"node 1 \(.+\) has 9 cpu and 0 cuda devices, node 0 has 1 cpu"),
        ({"nodes": 3}, "node 1 was started with --nodes 3, node 0 with --nodes 2"),
        ({"node": 2}, "--node-rank 2: with --nodes 2 the other nodes are 1 to 1"),
        ({"node": 0}, "--node-rank 0: with --nodes 2 the other nodes are 1 to 1"),
    ],
)
def test_nodes_that_differ_are_refused_here_and_there(changes, sentence):
    gathering = Gathering()
    refusal = gathering.call(greeting(1).model_copy(update=changes)).expect(Welcome, PATIENCE_S).refusal
    assert re.match(sentence, refusal)
    assert gathering.end() == refusal


def test_of_two_nodes_of_the_same_rank_the_second_is_turned_away():
    gathering = Gathering(nodes=3)
    first = gathering.call(greeting(1, 3))
    second = gathering.call(greeting(1, 3, session="of somebody else"))
    assert "node rank 1 is taken by" in str(second.expect(Welcome, PATIENCE_S).refusal)
    third = gathering.call(greeting(2, 3))
    assert third.expect(Welcome, PATIENCE_S).refusal is None
    assert first.expect(Welcome, PATIENCE_S).refusal is None
    assert gathering.end() == ""


def test_a_node_that_is_missing_is_named_when_time_is_up():
    gathering = Gathering(nodes=3, timeout_s=3.0, early=[greeting(1, 3)])
    refusal = str(gathering.early[0].expect(Welcome, PATIENCE_S).refusal)
    assert refusal.startswith("node rank 2 of 3 did not come to the rendezvous within 3 s; present are 0 (")
    assert refusal.endswith(
        ". Node 0 listens at 127.0.0.1, which only this host can reach: use another of its addresses"
    )
    assert gathering.end() == refusal


@pytest.mark.parametrize("said", STRANGE)
def test_strangers_who_knock_are_ignored(said):
    gathering = Gathering()
    with socket.create_connection(("127.0.0.1", gathering.port)) as browser:
        browser.sendall(len(said).to_bytes(4) + said)
        assert gathering.call(greeting(1)).expect(Welcome, PATIENCE_S).refusal is None
    assert gathering.end() == ""


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\1\0{"], ids=["nothing", "two bytes", "half"])
def test_strangers_who_stay_do_not_hold_up_the_gathering(said):
    gathering = Gathering(timeout_s=0.5)
    with socket.create_connection(("127.0.0.1", gathering.port)) as stranger:
        stranger.sendall(said)
        assert "node rank 1 of 2 did not come" in gathering.end()


def test_a_node_that_was_killed_and_started_again_is_no_stranger():
    gathering = Gathering(nodes=3)
    first = gathering.call(greeting(1, 3))
    gathering.call(greeting(2, 3)).expect(Welcome, PATIENCE_S)
    gathering.join()
    first.close()
    again = gathering.call(greeting(1, 3, session="of the next life"))
    assert gathering.leader.find_losses(3) is None
    assert again.expect(Welcome, PATIENCE_S).refusal is None
    again.close()
    assert str(gathering.leader.find_losses(3)).endswith("was lost: hung up")
    assert gathering.end() == ""


def welcome(listener: socket.socket) -> Link:
    """Node 0's side of the handshake, by hand."""
    link = Link(listener.accept()[0])
    link.send(Challenge(number=(number := new_number())))
    proof = link.expect(CallerProof, PATIENCE_S)
    handshake = Handshake(SECRET, number, proof.number)
    assert handshake.verify(proof.mac, "follower")
    link.send(LeaderProof(mac=handshake.mac("leader")))
    link.seal(handshake.seal("leader"))
    return link


def test_a_trial_waits_for_a_node_that_is_back_and_is_about_to_greet(monkeypatch):
    monkeypatch.setattr(leader, "BETWEEN_TRIALS_S", PATIENCE_S)
    gathering = Gathering()
    first = gathering.call(greeting(1))
    first.expect(Welcome, PATIENCE_S)
    first.close()
    again = connect("127.0.0.1", gathering.port, PATIENCE_S)
    authenticate(again, SECRET, PATIENCE_S)
    greets = threading.Timer(0.3, again.send, [greeting(1)])
    greets.start()
    assert gathering.leader.find_losses(2) is None
    greets.join()
    again.close()
    assert gathering.end() == ""


def test_a_node_that_comes_back_waits_as_long_as_the_trial_that_it_missed(monkeypatch):
    class Forks(ForkServer):
        def ready(self) -> None:
            """Nothing is launched here."""

    monkeypatch.setattr(follower, "MARGIN_S", 0.5)
    campaign = Campaign(scenario=SCENARIO, folder=Path(), corpora={"lstm": CORPUS}, machine=Machine(cores=((0,),)))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        node = NodeFollower(Forks(), 1, "127.0.0.1", listener.getsockname()[1], 2.0, SECRET)
        ended = threads.submit(node.follow, campaign)
        welcome(listener).close()  # is it there at all?
        for patience_s in (0.0, 4.0):
            link = welcome(listener)
            assert link.expect(NodeGreeting, PATIENCE_S).node == 1
            time.sleep(patience_s)
            link.send(Welcome())
            if patience_s:
                link.send(Over())
            link.close()
        ended.result(PATIENCE_S)


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        (Site(nodes=2), "--nodes 2: every node also needs --node-rank, from 0 to 1, and --rendezvous HOST:PORT"),
        (Site(nodes=2, node_rank=2, rendezvous="h:1"), "--node-rank 2: with --nodes 2, ranks are 0 to 1"),
        *[
            (Site(nodes=2, node_rank=0, rendezvous=where), f"--rendezvous {where}: write it as HOST:PORT, such as 10.0")
            for where in ("h", "h:99999", ":1", "[]:1", "fd00::1", "[h]:1", "a..b:1", f"{'h' * 300}:1")
        ],
        *[
            (
                Site(nodes=2, node_rank=0, rendezvous=where),
                f"--rendezvous {where}: {where[:-2].strip('[]')} is not the address of one host",
            )
            for where in ("0.0.0.0:1", "[::]:1")
        ],
        (Site(node_rank=1), "--node-rank: add --nodes, the number of nodes that run this command"),
    ],
)
def test_a_site_that_is_not_clear_is_bad_usage(site, sentence):
    with pytest.raises(UsageError) as caught:
        TorchrunLauncher.at(site)
    assert str(caught.value).startswith(sentence)


def test_a_scheduler_may_say_where_this_is(monkeypatch):
    for name, value in {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(f"PET_{name}", value)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    said: list[str] = []
    launcher = choose(None, Site(), said.append)
    assert isinstance(launcher, TorchrunLauncher)
    assert said == ["Launcher torchrun, because PET_NNODES is set; --launcher local measures on this machine alone"]
    assert launcher.follower is not None
    assert (launcher.machine().nodes, launcher.machine().granted) == (2, True)


def test_launchers_are_chosen_by_name():
    with pytest.raises(UsageError, match=r"--launcher: there is no 'slrum'; choose from .*local.*torchrun"):
        choose("slrum", Site(), print)
    with pytest.raises(UsageError, match="--nodes: not for launcher local, which uses one machine"):
        choose("local", Site(nodes=2), print)
    assert "torchrun" in LAUNCHERS


def test_a_rendezvous_that_nobody_keeps_is_given_up(tmp_path):
    with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(LinkError, match="Connection refused"):
        connect("127.0.0.1", port, 0.3)
