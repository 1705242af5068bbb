"""
What the contracts speak of: keys, conditions, operations, views.
"""
