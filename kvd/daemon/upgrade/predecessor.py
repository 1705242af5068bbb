"""
The old daemon, as the new one sees it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.task import deferLater

from kvd import __version__
from kvd.daemon.opening import Sockets
from kvd.daemon.upgrade.manifest import (
    MAX_MESSAGE_BYTES,
    HandedGroup,
    Manifest,
    adopted,
    decode,
    fixed_texts,
)
from kvd.daemon.upgrade.successor import LOOK_SECONDS
from kvd.errors import BadSetting
from kvd.net.listening import ListenerGroup
from kvd.settings import Address, Settings, SystemdAddress
from kvd.store.totals import Total
from kvd.system.inherited import VARIABLE

_GONE: Final = {"gone": True}


class Predecessor:
    """
    Takes what the old daemon hands on.
    """

    def __init__(self, channel: socket.socket, manifest: Manifest) -> None:
        """
        Args:
            channel: To the old daemon; owned by this.
            manifest: What it has sent first.
        """
        self._channel = channel
        channel.setblocking(False)
        self.manifest = manifest
        self._taken: list[tuple[ListenerGroup, HandedGroup]] = []
        self._totals: Sequence[Total] = ()
        self._signals: list[int] = []
        self._gone = False
        self._stopped = False

    def check(self, settings: Settings) -> None:
        """
        Check that this daemon can take over from the old one with these settings.

        Raises:
            BadSetting: It cannot.
        """
        here = fixed_texts(settings)
        for name, there in self.manifest.fixed.items():
            if there != here.get(name):
                raise BadSetting(
                    f"{name} is {here.get(name)!r}, and the running kvd has {there!r}:"
                    " an upgrade cannot change that; restart kvd, or give it the same"
                )
        if not settings.procs:
            raise BadSetting(
                "procs is 0, and the running kvd has workers: an upgrade cannot change"
                " that; restart kvd, or give it workers"
            )

    def sockets(self, settings: Settings) -> Sockets:
        """
        The listening sockets of the old daemon.

        Args:
            settings: Those of this one, checked.
        """
        control, status = self.manifest.control, self.manifest.status
        return Sockets(
            [
                self._take(group, settings.listen[group.listen])
                for group in self.manifest.groups
            ],
            None if control is None else self._take(control, None),
            None if status is None else self._take(status, settings.status),
        )

    def _take(
        self, handed: HandedGroup, listen: Address | SystemdAddress | None
    ) -> ListenerGroup:
        group = adopted(handed, listen)
        self._taken.append((group, handed))
        return group

    def own_sockets(self) -> None:
        """
        Treat the sockets as those of this daemon from now on, but not their files: if
        this daemon ends, the old one may go on.
        """
        for group, handed in self._taken:
            group.given, group.fixed = handed.given, handed.fixed

    def own_files(self) -> None:
        """
        Remove the files of the sockets when this daemon ends, or now if it has closed
        them already.
        """
        for group, handed in self._taken:
            group.own_file(handed.inode)

    # -- messages -------------------------------------------------------------

    async def allowed(
        self,
        is_ready: Callable[[], bool],
        failure: Callable[[], str],
        reactor: Any,
    ) -> bool:
        """
        Wait until this daemon may serve.

        Args:
            is_ready: Whether it can.
            failure: Why it cannot, in a sentence; empty: nothing is known.
            reactor: Provides the time.

        Returns:
            False: the upgrade has been given up, and this daemon is to end.
        """
        self._send({"started": os.getpid()})
        reported = False
        while True:
            message = self._receive()
            if "stop" in message:
                self._stopped = True
                return False
            if "take" in message:
                self._totals = [Total(*each) for each in message["take"]["totals"]]
                # It may have been withdrawn since, where this process was slow.
                return "stop" not in self._receive()
            # If the old daemon has died, this one takes its place, as at any start.
            if not self._gone:
                if sentence := failure():
                    self._send({"error": sentence})
                    self._stopped = True
                    return False
                if is_ready() and not reported:
                    reported = True
                    self._send({"ready": os.getpid(), "version": __version__})
            elif is_ready():
                return True
            await deferLater(reactor, LOOK_SECONDS)

    @property
    def totals(self) -> Sequence[Total]:
        """
        What the values of each quota take, as the old daemon has counted; empty if it
        is not known.
        """
        return self._totals

    async def accepts_no_more(
        self, is_ending: Callable[[], bool], reactor: Any
    ) -> bool:
        """
        Tell the old daemon that this one serves, and wait until it does so no more.

        Args:
            is_ending: Whether this daemon has been asked to end. Until the old one has
                left its place, that one goes on then.
            reactor: Provides the time.

        Returns:
            False: this daemon is to end.
        """
        self.restore_stderr()
        if not is_ending():
            self._send({"serves": True})
        while not self._gone:
            message = self._receive()
            if "main" in message:
                break
            if "stop" in message:
                return False
            if not message:
                if is_ending():
                    self._send({"error": "it was asked to end"})
                    return False
                await deferLater(reactor, LOOK_SECONDS)
        return True

    def remember(self, number: int) -> None:
        """
        A signal came before this daemon could heed it.
        """
        self._signals.append(number)

    async def ended(self, heed: Callable[[int], object], reactor: Any) -> None:
        """
        Wait until the old daemon has ended.

        Args:
            heed: Called for each signal that came before, or that the old daemon passes
                on.
            reactor: Provides the time.
        """
        while True:
            gone = self._receive() is _GONE
            signals, self._signals = self._signals, []
            for number in signals:
                heed(number)
            if gone:
                break
            await deferLater(reactor, LOOK_SECONDS)
        self.close()

    def close(self) -> None:
        """
        Close the channel to the old daemon.
        """
        self._channel.close()

    def restore_stderr(self) -> None:
        """
        Print errors to where the old daemon does.
        """
        descriptor = self.manifest.stderr
        if descriptor is not None:
            os.dup2(descriptor, 2)
            os.close(descriptor)

    def _receive(self) -> dict[str, Any]:
        if self._gone:
            return _GONE
        try:
            data = self._channel.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return {}
        except ConnectionResetError:
            # It died before it had read everything. What it had sent is still there.
            data = self._channel.recv(MAX_MESSAGE_BYTES)
        if not data:
            self._gone = True
            return _GONE
        message: dict[str, Any] = json.loads(data)
        if "signal" in message:
            self.remember(message["signal"])
        return message

    def _send(self, message: dict[str, Any]) -> None:
        # The next look finds that it is gone.
        with suppress(OSError):
            self._channel.send(json.dumps(message).encode("ascii"))


def take_predecessor(environ: MutableMapping[str, str]) -> Predecessor:
    """
    The old daemon that started this process to take its place.

    Args:
        environ: The environment of the process, with the variable; it is removed, and
            children do not inherit the descriptors.

    Raises:
        BadSetting: It hands over in another way than this version of kvd knows, or no
            kvd has set the variable.
    """
    text = environ.pop(VARIABLE)
    try:
        channel = socket.socket(fileno=int(text))
        channel.set_inheritable(False)
        manifest = decode(channel.recv(MAX_MESSAGE_BYTES))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSetting(
            f"{VARIABLE}={text} in the environment was not set by a kvd that is being"
            " upgraded: leave it out"
        ) from error
    for descriptor in manifest.descriptors():
        os.set_inheritable(descriptor, False)
    return Predecessor(channel, manifest)
