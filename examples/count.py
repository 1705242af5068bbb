"""
Count under a key that others count under too, losing nothing:
python count.py http://127.0.0.1:8080 TIMES
"""

import sys

import treq
from twisted.internet.task import react


async def main(reactor, url, times):
    for _ in range(int(times)):
        while not await add_one(f"{url}/counter"):
            pass
    print(await (await treq.get(f"{url}/counter")).text())


async def add_one(url):
    """
    True if nobody else wrote between our reading and our writing.
    """
    reply = await treq.get(url)
    text = await reply.text()
    if reply.code == 404:
        number, condition = 0, {"If-None-Match": "*"}
    else:
        number, condition = (
            int(text),
            {"If-Match": reply.headers.getRawHeaders("ETag")[0]},
        )
    reply = await treq.put(url, data=b"%d" % (number + 1), headers=condition)
    await reply.content()
    return reply.code in (201, 204)


if len(sys.argv) != 3:
    sys.exit(__doc__.strip())
react(main, sys.argv[1:])
