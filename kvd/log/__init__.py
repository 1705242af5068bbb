"""
The daemon's logs: limited where clients could fill them, and written by threads.
"""
