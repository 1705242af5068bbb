"""
The status site: for browsers, for Prometheus, and for whoever balances load.

Nothing of this is imported by a daemon without one, nor by any worker.
"""
