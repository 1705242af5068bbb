"""
The ``kvd`` of a shell: a process that has loaded the command forks it, since loading is
most of what a short one does.

Nothing imports this file. Its text is a program for a Python that imports nothing else,
with the descriptor of the fork server in ``KVD_TEST_SERVER``.
"""

import json
import os
import signal
import socket
import sys

NAMES = "stdin", "stdout", "stderr"


def is_open(descriptor: int) -> bool:
    """
    Whether the shell has opened it for this command.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def main() -> None:
    """
    Have the command run with this process's arguments, folder, environment and
    standard streams, and end as it does.
    """
    closed = [number for number in range(3) if not is_open(number)]
    for _ in closed:
        # Nothing else that is opened here gets their numbers.
        os.open(os.devnull, os.O_RDWR)
    environment = dict(os.environ)
    server = socket.socket(fileno=int(environment.pop("KVD_TEST_SERVER")))
    umask = os.umask(0)
    # As Python itself finds them.
    prelude = "".join(f"os.close({n}); sys.{NAMES[n]} = None\n" for n in closed)
    # Also if that folder has been removed.
    folder = f"/proc/{os.getpid()}/cwd"
    words = [sys.argv[1:], folder, environment, umask, prelude]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(server, [json.dumps(words).encode()], [0, 1, 2, theirs.fileno()])
    theirs.close()
    process = int(ours.recv(100))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    status = int(ours.recv(100))
    ours.send(b"done")
    ours.recv(1)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
