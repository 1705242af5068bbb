"""
Tests of the dispatch policies.
"""
