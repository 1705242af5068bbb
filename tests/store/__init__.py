"""
The tests of the stores.
"""
