"""
Measurements for those who change kvd.

``python -m bench`` puts kvd beside its peers; ``python -m bench.figures`` measures
what kvd promises of itself.
"""
