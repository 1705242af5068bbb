"""
Where values live: one file per store.
"""
