"""
Messages between the supervisor, the fork server and the workers.
"""
