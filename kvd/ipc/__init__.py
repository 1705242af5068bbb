"""
What supervisor, fork server and workers say to each other.
"""
