"""
Changes of a running daemon, under the load of `tests.crash.load`.
"""
