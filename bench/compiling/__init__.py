"""
The same Python compiled by mypyc and by Cython, beside the C that kvd has.
"""
