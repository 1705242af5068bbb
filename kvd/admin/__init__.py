"""
Observing and changing a running daemon: the status site and the control socket.
"""
