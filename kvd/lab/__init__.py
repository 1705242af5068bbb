"""
Measuring and simulating: ``kvd bench``, ``kvd simulate``.
"""
