"""
Tests that start the true daemon, or install kvd.
"""
