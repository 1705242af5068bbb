"""
Workers that a test plays.
"""

from __future__ import annotations

import os
import socket

from kvd.ipc.messages import Message, receive, send


class PlayedWorker:
    """
    A worker's end of its control socket.
    """

    def __init__(self, number: int, request: int, control: socket.socket) -> None:
        self.number = number
        self.request = request
        self.control = control
        control.setblocking(False)

    def receive(self) -> list[Message]:
        """
        What the supervisor has said since the last time.
        """
        messages: list[Message] = []
        while True:
            try:
                came = receive(self.control)
            except BlockingIOError:
                return messages
            if came is None:
                return messages
            for descriptor in came[1]:
                os.close(descriptor)
            messages.append(came[0])

    def say(self, message: Message) -> None:
        """
        Something to the supervisor.
        """
        send(self.control, message)

    def end(self) -> None:
        """
        As any process's end does it.
        """
        self.control.close()


class PlayedForks:
    """
    Makes workers that the test plays.
    """

    def __init__(self) -> None:
        self.made: list[PlayedWorker] = []
        self.is_starting = False

    def fork(self, worker: int, request: int, control: socket.socket) -> None:
        """
        See `kvd.workers.pool.Forks`.
        """
        self.made.append(PlayedWorker(worker, request, control))
