"""
A client for values of any size, in constant memory, on Twisted and treq.

`kvd.client.client` has the requests, `kvd.client.sources` the sources of a PUT,
`kvd.client.credentials` what proves who the client is, and `kvd.client.errors` the
exceptions.
"""

from kvd.client.client import Client
from kvd.client.connecting import ClientTLS
from kvd.client.credentials import Credentials, Login, Token
from kvd.client.errors import (
    Absent,
    BrokenOff,
    ClientError,
    ConditionFailed,
    CredentialsUnusable,
    NotKvd,
    Refused,
    SourceChanged,
    SourceUnreadable,
    TimedOut,
    Unreachable,
)
from kvd.client.facts import Entry, Stored, Value
from kvd.client.resuming import ISeekableSource
from kvd.client.sources import BytesSource, FileSource, ISource, StreamSource

__all__ = [
    "Absent",
    "BrokenOff",
    "BytesSource",
    "Client",
    "ClientError",
    "ClientTLS",
    "ConditionFailed",
    "Credentials",
    "CredentialsUnusable",
    "Entry",
    "FileSource",
    "ISeekableSource",
    "ISource",
    "Login",
    "NotKvd",
    "Refused",
    "SourceChanged",
    "SourceUnreadable",
    "Stored",
    "StreamSource",
    "TimedOut",
    "Token",
    "Unreachable",
    "Value",
]
