"""
Tests for `kvd.lab.measuring`.
"""
