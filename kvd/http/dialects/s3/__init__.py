"""
A subset of S3: objects of buckets, for boto3, aws-cli, rclone, s3cmd, DuckDB and
others.

``/BUCKET/KEY`` is the value of that key, behind the prefix of the dialect. Any bucket
is there: it is a folder, which is made by its first value. An object whose key ends
with a slash is the value ``.kvd-collection`` in that folder, as of WebDAV.

kvd's entity tags are none of MD5, and many clients compare one that could be. So each
has ``-1`` at its end here, like that of an object which was uploaded in one part.
"""
