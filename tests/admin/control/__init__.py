"""
The control socket.
"""
