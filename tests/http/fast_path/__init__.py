"""
Tests for `kvd.http.fast_path` and the compiled module behind it.
"""
