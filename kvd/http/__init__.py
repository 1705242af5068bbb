"""
A connection, its requests, and what each method does.
"""
