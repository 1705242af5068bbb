"""
Client programs beside a daemon.
"""
