"""
Measurements that anybody can repeat: ``kvd bench``.
"""
