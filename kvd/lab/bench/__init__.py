"""
Measurements that every user can repeat: ``kvd bench``.
"""
