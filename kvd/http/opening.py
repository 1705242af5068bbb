"""
A connection before its first request: the header of a proxy, and the handshake of TLS.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger

from kvd.errors import HandshakeFailed, PeerError, ProxyHeaderRefused, TLSExpected
from kvd.http.admission import too_many_connections
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.states import State
from kvd.net.proxy_header import HeaderReader


class OpeningConnection(ConnectionLifecycle):
    """
    The part of a connection that reads what comes before requests.
    """

    _log = Logger()

    _header: HeaderReader
    """Of a connection that a proxy makes."""

    def _begin_requests(self) -> None:
        """
        What comes from now on is requests.
        """
        raise NotImplementedError

    def _refuse(self, error: PeerError) -> None:
        """
        Refuse bytes after which nothing can be trusted, and close.
        """
        raise NotImplementedError

    def _open(self) -> None:
        transport = self.transport
        if self._behind_proxy:
            self._state = State.PROXY
            self._header = HeaderReader(transport.socket)
            transport.read_by(self._read_proxy_header)
        elif transport.needs_handshake:
            # The first state, over TLS.
            self._state = State.HANDSHAKE
            transport.read_by(self._shake_hands)
        else:
            self._begin_requests()

    # -- the header of a proxy ------------------------------------------------

    def _read_proxy_header(self) -> Any:
        """
        Go on with the header of the PROXY protocol; called instead of `dataReceived`.
        """
        reader, transport = self._header, self.transport
        is_trusted = self.context.is_proxy(transport.client)
        try:
            header = reader.read()
        except BlockingIOError:
            return None
        except EOFError:
            return CONNECTION_DONE
        except OSError:
            return CONNECTION_LOST
        except ProxyHeaderRefused as error:
            if is_trusted:
                self._proxy_header_refused(error)
                return None
            # A client of its own, which need not send one.
            return self._begin_behind_proxy(reader.begun)
        if header is None:
            return None
        if not is_trusted:
            self._log.warn(
                "{peer} sends the header of a proxy and is not among --trusted-proxies:"
                " the header is ignored",
                peer=transport.peer_name,
            )
        elif header.source is not None:
            transport.is_forwarded_for(header.source)
            by_address = self.context.by_address
            if by_address is not None and not self.context.is_proxy(header.source):
                if not by_address.has_room(header.source):
                    self._refuse_before_requests(too_many_connections())
                    return None
                self.context.count_for_address(self)
        return self._begin_behind_proxy(b"")

    def _begin_behind_proxy(self, begun: bytes) -> Any:
        transport = self.transport
        if transport.needs_handshake and not begun:
            self._wait(State.HANDSHAKE)
            transport.read_by(self._shake_hands)
        else:
            self._wait(State.IDLE)
            self._begin_requests()
            if begun:
                self.dataReceived(begun)
        # What is behind the header mostly comes with it.
        return transport.doRead()

    def _proxy_header_refused(self, error: ProxyHeaderRefused) -> None:
        self._log.warn(
            "no connection for the proxy {peer}: {reason}",
            peer=self.transport.peer_name,
            reason=error.sentence,
        )
        self._refuse_before_requests(error)

    def _proxy_header_is_late(self, bound: float) -> None:
        self._proxy_header_refused(
            ProxyHeaderRefused(
                "The header of the PROXY protocol was not complete after"
                f" {bound:g} seconds."
            )
        )

    def _refuse_before_requests(self, error: PeerError) -> None:
        """
        Refuse a connection of which nothing but a header was read.
        """
        self.transport.read_by(None)
        if self.transport.needs_handshake:
            # What it sends is not for kvd, and it could not read a reply.
            self._close()
        else:
            self._refuse(error)

    # -- TLS ------------------------------------------------------------------

    def _shake_hands(self) -> Any:
        """
        Go on with the handshake; called instead of `dataReceived`.
        """
        run_queue = self.context.run_queue
        if not run_queue.has_time():
            # A step may take a millisecond, and many clients may come at once.
            self.transport.stopReading()
            run_queue.add(self._shake_hands_later, self._network)
            return None
        return self._go_on_shaking()

    def _shake_hands_later(self) -> None:
        if self._state is State.HANDSHAKE:
            self.transport.read_by(self._go_on_shaking)
            self.transport.read_again()

    def _go_on_shaking(self) -> Any:
        transport = self.transport
        try:
            is_complete = transport.handshake()
        except TLSExpected as error:
            transport.read_by(None)
            self._refuse(error)
            return None
        except HandshakeFailed as error:
            self._handshake_failed(error.sentence)
            return None
        except OSError:
            return CONNECTION_LOST
        if not is_complete:
            transport.read_by(self._shake_hands)
            if transport.is_shaking:
                self.context.half_handshakes.add(self._give_way, self._network)
            return None
        self.context.half_handshakes.discard(self._give_way)
        self._wait(State.IDLE)
        self._begin_requests()
        # The first request mostly comes with the end of the handshake.
        result = transport.doRead()
        secure = transport.secure
        if secure is not None and transport.connected:
            secure.release()
        return result

    def _give_way(self) -> None:
        self._log_no_handshake(
            "too many are half done, and its address has the most of them"
        )
        self.abort()

    def _handshake_failed(self, reason: str) -> None:
        self._log_no_handshake(reason)
        # What still comes is thrown away.
        self.transport.read_by(None)
        self.transport.set_low_water_mark(1)
        self._close()

    def _handshake_is_late(self, bound: float) -> None:
        self._handshake_failed(
            f"the handshake was not complete after {bound:g} seconds"
        )

    def _shake_hands_no_more(self) -> None:
        """
        The connection has ended.
        """
        self.context.run_queue.discard(self._shake_hands_later)
        if self.transport.needs_handshake:
            self.context.half_handshakes.discard(self._give_way)

    def _log_no_handshake(self, reason: str) -> None:
        self._log.info(
            "no connection over TLS with {peer}: {reason}",
            peer=self.transport.peer_name,
            reason=reason,
            kind=reason,
        )
