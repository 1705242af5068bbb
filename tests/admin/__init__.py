"""
The status site.
"""
