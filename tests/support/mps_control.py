"""Stands for NVIDIA's `nvidia-cuda-mps-control`: a daemon with a socket and a server, and what speaks to it.

`FAKE_MPS` has it go wrong: `broken` ends as soon as it starts, `stubborn` does not quit, and its server leaves its
session.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def main() -> int:
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/nowhere")
    return serve(folder) if sys.argv[1:] == ["-f"] else speak(folder)


def serve(folder: str) -> int:
    how = os.environ.get("FAKE_MPS")
    if how == "broken":
        print("Failed to start: broken on purpose")
        return 1
    server = subprocess.Popen(["sleep", os.environ["OFFSPRING"]], start_new_session=how == "stubborn")
    known = {"daemon": os.getpid(), "server": server.pid, "pipes": folder}
    Path(os.environ["CUDA_MPS_LOG_DIRECTORY"], "control.log").write_text(json.dumps(known))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/control")
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(100) == b"quit\n" and how != "stubborn":
                    server.kill()
                    server.wait()
                    return 0


def speak(folder: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"{folder}/control")
        except OSError:
            print("Cannot find MPS control daemon process")
            return 1
        connection.sendall(sys.stdin.read().encode())
        connection.recv(100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
