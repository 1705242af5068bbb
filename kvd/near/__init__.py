"""
A cache on a disk of this machine, in front of a store that is far away.

- `store` decides where a value comes from.
- `filling` reads a value from the store into the cache, once for all who wait for it.
"""
