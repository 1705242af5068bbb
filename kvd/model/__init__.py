"""
The values that interfaces use: keys, conditions, operations, views.
"""
