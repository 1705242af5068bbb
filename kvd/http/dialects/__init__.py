"""
How requests are understood and replies spelled for one kind of client.
"""
