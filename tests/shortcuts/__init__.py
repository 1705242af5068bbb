"""
Tests for `kvd.shortcuts` and the compiled module behind it.
"""
