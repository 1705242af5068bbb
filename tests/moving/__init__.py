"""
Tests of `kvd.moving`.
"""
