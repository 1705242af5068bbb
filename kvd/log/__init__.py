"""
The daemon's log: limited where clients could fill it, and written by a thread.
"""
