"""
Send a file of any size and fetch it again, in constant memory:
python stream_file.py http://127.0.0.1:8080 FILE COPY
"""

import sys

import treq
from twisted.internet.task import react
from twisted.web.client import FileBodyProducer


async def main(reactor, url, path, copy):
    with open(path, "rb") as file:
        # What is given as a file would be read whole; a producer is asked for
        # more when there is room for it.
        reply = await treq.put(f"{url}/large/file", data=FileBodyProducer(file))
    if reply.code not in (201, 204):
        raise SystemExit(await reply.text())

    # Unbuffered, each piece goes to the callback and is forgotten.
    reply = await treq.get(f"{url}/large/file", unbuffered=True)
    with open(copy, "wb") as file:
        await reply.collect(file.write)
    print(f"{reply.length} bytes went and came")


if len(sys.argv) != 4:
    sys.exit(__doc__.strip())
react(main, sys.argv[1:])
