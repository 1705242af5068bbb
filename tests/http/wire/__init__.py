"""
Tests of the wire.
"""
