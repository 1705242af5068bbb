"""
Programs of extended BPF that choose the socket of a group, one file for each way.
"""
