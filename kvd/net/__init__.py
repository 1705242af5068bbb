"""
Listening sockets, the transport, and the bytes that the kernel moves.
"""
