"""
How a running daemon is seen and changed: the status site and the control socket.
"""
