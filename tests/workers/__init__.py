"""
Tests of the processes.
"""
