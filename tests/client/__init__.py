"""
The client library, without a socket.
"""
