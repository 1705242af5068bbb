"""
Policies tried without a daemon: ``kvd simulate``.
"""
