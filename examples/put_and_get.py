"""
Keep a value and fetch it again: python put_and_get.py http://127.0.0.1:8080
"""

import sys

import treq
from twisted.internet.task import react


async def main(reactor, url):
    reply = await treq.put(f"{url}/greetings/hello", data=b"Hello, world!\n")
    print("kept, as version", reply.headers.getRawHeaders("ETag")[0])

    reply = await treq.get(f"{url}/greetings/hello")
    print((await reply.text()).strip())

    reply = await treq.delete(f"{url}/greetings/hello")
    print("removed" if reply.code == 204 else await reply.text())


if len(sys.argv) != 2:
    sys.exit(__doc__.strip())
react(main, sys.argv[1:])
