"""The secret that the nodes of a campaign share, and by which they know each other."""

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
    """The secret in a file, else that in the environment, out of which it is taken; None where there is neither.

    Raises `UsageError` where it is none, or is no secret any more.
    """
    text = os.environ.pop(VARIABLE, None)
    if path is not None:
        return _require_length(_read(path), f"--secret-file {path}")
    return None if text is None else _require_length(os.fsencode(text), VARIABLE)


def require_loopback(host: str) -> None:
    """Raises `UsageError` where a rendezvous without a secret could be reached from elsewhere, or be elsewhere."""
    if not _is_loopback(host):
        raise UsageError(
            f"--rendezvous {host}: without a secret, nodes meet only at an address of loopback, such as 127.0.0.1; "
            f"{ADVICE}"
        )


def _read(path: Path) -> bytes:
    try:
        # A pipe that nobody writes into would not open otherwise.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"--secret-file {path} cannot be read: {error.strerror}; {ADVICE}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"--secret-file {path} is not a regular file; {ADVICE}")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(
                f"--secret-file {path} is open to others than its owner (mode {stat.S_IMODE(mode):o}); "
                "make another secret, if they may have read it, and close the file with chmod 600"
            )
        content = os.read(descriptor, MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--secret-file {path} cannot be read: {error.strerror}; {ADVICE}") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise UsageError(f"--secret-file {path} holds more than {MAX_BYTES} bytes, and is no secret; {ADVICE}")
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
    """Whether a host's name or address leads nowhere but to this machine."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
