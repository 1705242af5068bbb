"""
A folder of the store, for people with a browser.
"""
