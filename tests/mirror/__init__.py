"""
Tests of `kvd.mirror`.
"""
