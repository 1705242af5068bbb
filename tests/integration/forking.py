"""
A process that has loaded twistd and kvd, and forks daemons: most of the time that a
daemon takes to start goes into loading them, over and over in hundreds of tests.

This file is not imported by what it is for. Its text runs before that of
`tests.integration.twistd.RUN_TWISTD`, in a Python of its own, and ends in each fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

MAX_BYTES = 1 << 18
"""
Of a request: the environment is the most of it.
"""

DONE = b"done"


def fork_daemons(control: socket.socket) -> None:
    """
    Fork a daemon for each request, until nobody can send one any more. Returns in each
    daemon, which has the arguments, the folder, the environment, the umask and the
    output that were requested, and nothing else open.
    """
    # Not the reactor, which a daemon installs.
    import twisted.application.reactors
    import twisted.internet.epollreactor
    import twisted.scripts.twistd  # noqa: F401

    import kvd.daemon.service  # noqa: F401

    assert "twisted.internet.reactor" not in sys.modules
    # Nobody waits for the processes that watch daemons.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MAX_BYTES, 2)
        if not data:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Whoever runs the tests may have ignored these.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    control.close()
    output, line = descriptors
    daemon = os.fork()
    if daemon:
        os.close(output)
        watch(daemon, socket.socket(fileno=line))
    arguments, folder, environment, umask = json.loads(data)
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, max(output, line) + 1)


def watch(daemon: int, line: socket.socket) -> None:
    """
    Tell how a daemon ends. As with any child, its number stays taken until whoever
    asked for it has been told. Never returns.
    """
    try:
        line.send(str(daemon).encode())
        ended = os.waitid(os.P_PID, daemon, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        exited = ended.si_code == os.CLD_EXITED
        line.send(str(ended.si_status if exited else -ended.si_status).encode())
        line.recv(len(DONE))
        os.waitpid(daemon, 0)
    finally:
        os._exit(0)
