"""
Load that checks every byte, while workers are killed.
"""
