"""
Bytes to events, and replies to bytes. Imports no Twisted.
"""
