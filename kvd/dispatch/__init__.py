"""
Who gets the next connection: one file per policy.
"""
