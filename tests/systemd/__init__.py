"""
Tests for `kvd.systemd`.
"""
