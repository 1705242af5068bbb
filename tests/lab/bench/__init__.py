"""
Tests for `kvd.lab.bench`.
"""
