"""
Programs of extended BPF that choose a socket of a group, one module for each program.
"""
