"""
What a daemon keeps when the power is cut at any moment.
"""
