"""
WebDAV (RFC 4918), classes 1 and 2: files and collections for rclone, davfs2, cadaver,
OpenDAL, file managers.

A value is a resource under its key. A collection is there if it has a value anywhere
below, or if MKCOL has made it: then it has a value named ``.kvd-collection``, which no
WebDAV client sees. So whatever plain clients store is in collections too, and a
collection that only they have filled is gone with its last value.

Properties that clients set are kept with the value, among its metadata. Locks are in a
value of their own (`kvd.http.dialects.webdav.locks`).
"""
