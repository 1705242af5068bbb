"""
Policies compared without a daemon: ``kvd simulate``.
"""
