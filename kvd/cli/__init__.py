"""
The ``kvd`` command.
"""
