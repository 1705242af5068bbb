"""
The daemon: the service that twistd runs, with a supervisor or in a single process.
"""
