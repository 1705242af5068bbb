"""
Tests for `kvd.bench`.
"""
