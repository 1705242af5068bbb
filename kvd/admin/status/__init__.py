"""
The status site: for browsers, for Prometheus, and for load balancers.

A daemon without a status site does not import this package, nor does any worker.
"""
