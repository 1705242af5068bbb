"""
List the keys below a prefix, page by page in their order:
python list_pages.py http://127.0.0.1:8080 PREFIX/ [KEYS]
"""

import json
import sys

import treq
from twisted.internet.task import react


async def main(reactor, url, prefix, page="100"):
    after = ""
    while True:
        # Keys are listed as they stand in a URL, so this one needs no quoting.
        reply = await treq.get(f"{url}/{prefix}?limit={page}&after={after}")
        lines = (await reply.text()).splitlines()
        for line in lines:
            entry = json.loads(line)
            print(f"{entry['size']:>12} {entry['key']}")
        if len(lines) < int(page):
            break
        after = json.loads(lines[-1])["key"]


if len(sys.argv) not in (3, 4):
    sys.exit(__doc__.strip())
react(main, sys.argv[1:])
