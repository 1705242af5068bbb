"""
The processes: supervisor, fork server, workers, and what they say to each other.
"""
