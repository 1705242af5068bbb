"""
Tests for `kvd.daemon.upgrade`.
"""
