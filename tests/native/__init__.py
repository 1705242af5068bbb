"""
Tests for `kvd.native`, and what builds it for them.
"""
