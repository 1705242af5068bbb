"""
The control socket: how a running daemon is asked, and by its owner alone.

It speaks HTTP: ``curl --unix-socket PATH http://kvd/status``.
"""
