"""
Measurements for those who change kvd.

``python -m bench`` compares kvd with its baselines; ``python -m bench.figures``
measures what kvd promises.
"""
