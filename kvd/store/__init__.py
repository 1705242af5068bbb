"""
The stores, which keep the values.
"""
