"""
Servers, as the users of client programs see them.
"""
