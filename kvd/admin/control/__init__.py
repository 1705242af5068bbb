"""
The control socket, by which the owner of a running daemon queries and changes it.

It speaks HTTP: ``curl --unix-socket PATH http://kvd/status``.
"""
