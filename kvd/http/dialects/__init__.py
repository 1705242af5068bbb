"""
How requests are understood, and which statuses replies have, for one kind of client.
"""
