"""
Tests for `kvd.daemon.systemd`.
"""
