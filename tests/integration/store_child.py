"""
One of several processes that use a file store at once.

    python -m tests.integration.store_child ACTION FOLDER [NUMBER]

Says ``ready`` when the store is open, begins when it is sent a line, and says
at the end what came of it as a number.
"""

import math
import os
import sys
import time

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from kvd.errors import KeyAbsent, PreconditionFailed
from kvd.interfaces import IStore
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.contract.asking import ABSENT, holds
from kvd.store.file_maker import maker
from kvd.store.waiting import resolved

KEY = Key(b"counted/key")
LOOPS = 4
TICK_SECONDS = 0.003


async def create(store: IStore, times: int) -> int:
    """
    Begin many uploads of one key and let each commit only if it creates; how
    many did.
    """
    uploads = [await resolved(store.begin(KEY, None)) for _ in range(times)]
    created = 0
    for upload in uploads:
        await resolved(upload.write(b"%d" % os.getpid()))
        try:
            created += (await resolved(upload.commit(ABSENT))).created
        except PreconditionFailed:
            pass  # As it should be for all but one.
    return created


async def race(store: IStore, times: int) -> int:
    """
    Try to create one value after the other, each at a moment that is the same
    in all processes; how many it did.
    """
    start = math.ceil(time.monotonic()) + 1
    created = 0
    for number in range(times):
        upload = await resolved(store.begin(Key(b"race/%d" % number), 0))
        while time.monotonic() < start + number * TICK_SECONDS:
            pass  # A sleep would end at another moment in each of them.
        try:
            created += (await resolved(upload.commit(ABSENT))).created
        except PreconditionFailed:
            pass  # Another was faster.
    return created


async def count(store: IStore, times: int) -> int:
    """
    Raise a number so many times in each of some loops; how often another was
    faster.
    """
    counts = [Deferred.fromCoroutine(_count(store, times)) for _ in range(LOOPS)]
    return sum(await gatherResults(counts))


async def _count(store: IStore, times: int) -> int:
    lost = 0
    while times:
        value = await resolved(store.open(KEY))
        number = await resolved(value.read(0, 20))
        value.close()
        upload = await resolved(store.begin(KEY, None))
        await resolved(upload.write(b"%d" % (int(number) + 1)))
        try:
            await resolved(upload.commit(holds(value.info.etag)))
            times -= 1
        except PreconditionFailed:
            lost += 1
    return lost


async def churn(store: IStore, times: int) -> int:
    """
    Publish and remove values in a deep folder that is pruned and made again
    all the time; how often a value was not there any more.
    """
    absent = 0
    for number in range(times):
        key = Key(b"a/b/c/d/%d" % (number % 3))
        upload = await resolved(store.begin(key, 0))
        await resolved(upload.commit(UNCONDITIONAL))
        try:
            await resolved(store.remove(key, UNCONDITIONAL))
        except KeyAbsent:
            absent += 1
    return absent


async def upload_and_stop(store: IStore, times: int) -> int:
    """
    Write a part of a value, say so, and commit when a line comes.
    """
    upload = await resolved(store.begin(KEY, None))
    await resolved(upload.write(b"part"))
    print("uploading", flush=True)
    sys.stdin.readline()
    return (await resolved(upload.commit(UNCONDITIONAL))).info.size


async def list_all(store: IStore, times: int) -> int:
    """
    List everything; how many values there are.
    """
    listing = store.list(b"", b"", None)
    found = 0
    while taken := await resolved(listing.next_slice()):
        found += len(taken)
    return found


ACTIONS = {
    "create": create,
    "race": race,
    "count": count,
    "churn": churn,
    "upload": upload_and_stop,
    "list": list_all,
}


async def run(action: str, path: str, durability: str, times: str) -> None:
    """
    Do one of the actions.
    """
    store = maker.open_store(path, "disk" if durability == "disk" else "process")
    print("ready", flush=True)
    sys.stdin.readline()
    print(await ACTIONS[action](store, int(times)), flush=True)
    await resolved(store.close())


def main() -> None:
    """
    Do what the arguments say.
    """
    react(lambda _, *args: Deferred.fromCoroutine(run(*args)), sys.argv[1:])


if __name__ == "__main__":
    main()
