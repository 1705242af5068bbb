"""
The `kvd` command.
"""
