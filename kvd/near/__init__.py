"""
A cache on a disk of this machine, in front of a store that is far away.

- `store` decides where a value comes from.
- `folder` checks that the cache can have its folder.
- `filling` reads a value from the store into the cache, once for all clients that wait.
"""
