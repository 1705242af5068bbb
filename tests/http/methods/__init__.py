"""
The tests of `kvd.http.methods`.
"""
