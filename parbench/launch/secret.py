"""The secret that the nodes of a campaign share, to authenticate each other."""

import ipaddress
import os
import socket
import stat
from pathlib import Path

from parbench.errors import UsageError

VARIABLE = "PARBENCH_SECRET"
MIN_CHARACTERS = 32
MAX_BYTES = 4096
ADVICE = (
    "make one with (umask 077; head -c 32 /dev/urandom | base64 > FILE), and give every node a copy of it "
    f"as --secret-file FILE, or its text in {VARIABLE}"
)


def read_secret(path: Path | None) -> bytes | None:
    """The secret in the file, else in the environment variable, which is removed; None if there is neither.

    Raises `UsageError` if it is too short or too long, cannot be read, or others can read its file.
    """
    text = os.environ.pop(VARIABLE, None)
    if path is not None:
        return _require_length(_read(path), f"--secret-file {path}")
    return None if text is None else _require_length(os.fsencode(text), VARIABLE)


def require_loopback(host: str) -> None:
    """Raises `UsageError` if a rendezvous without a secret is not on loopback, where only this machine reaches it."""
    if not _is_loopback(host):
        raise UsageError(
            f"--rendezvous {host}: without a secret, the rendezvous must be a loopback address, such as 127.0.0.1; "
            f"{ADVICE}"
        )


def _read(path: Path) -> bytes:
    try:
        # Opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"--secret-file {path} cannot be read: {error.strerror}; {ADVICE}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"--secret-file {path} is not a regular file; {ADVICE}")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(
                f"--secret-file {path} can be read by others than its owner (mode {stat.S_IMODE(mode):o}); "
                "protect it with chmod 600, and make a new secret if somebody may have read it"
            )
        content = os.read(descriptor, MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--secret-file {path} cannot be read: {error.strerror}; {ADVICE}") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise UsageError(f"--secret-file {path} has more than {MAX_BYTES} bytes, too long for a secret; {ADVICE}")
    return content


def _require_length(content: bytes, source: str) -> bytes:
    secret = content.strip()
    if not secret:
        raise UsageError(f"{source} is empty; {ADVICE}")
    if len(secret) < MIN_CHARACTERS:
        raise UsageError(
            f"{source} is too short for a secret: it has {len(secret)} characters, and needs {MIN_CHARACTERS}; {ADVICE}"
        )
    return secret


def _is_loopback(host: str) -> bool:
    """Whether a host's name or address resolves to loopback addresses only."""
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in addresses)
