"""
Somebody's policies for kvd.
"""
