"""
Who may do what: users, their rights by prefix, and how they prove who they are.

Nothing here knows HTTP or a connection; `kvd.http.authorization` asks it about each
request.
"""
