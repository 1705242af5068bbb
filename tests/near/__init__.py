"""
Tests of `kvd.near`.
"""
