"""
The interface to systemd: sockets that it opened before the daemon started, and
notifications of the daemon's state.
"""
