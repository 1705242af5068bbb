"""
kvd: an HTTP daemon that keeps values under keys, over N processes.
"""

__version__ = "0.1.0"
