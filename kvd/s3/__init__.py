"""
The S3 store: values are objects in a bucket of a distributed engine.

It speaks S3 through treq; botocore finds the credentials and signs. Nothing here is
imported unless the setting is ``s3:``.
"""
