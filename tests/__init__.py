"""
The tests of kvd.
"""
