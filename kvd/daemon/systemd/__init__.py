"""
What a service manager does for a daemon: sockets from before its start, and being
told how it is.
"""
