"""
The tests of `kvd.exchanges`.
"""
