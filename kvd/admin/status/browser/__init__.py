"""
The status page as the browser gets it: its document, its style and its script.
"""
