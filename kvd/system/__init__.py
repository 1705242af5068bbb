"""
What the operating system gives a process: clock, descriptors, privileges, signals.
"""
