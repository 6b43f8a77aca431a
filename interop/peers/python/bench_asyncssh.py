"""One piece of work with asyncssh, to be measured: VERB HOST PORT USER KEY SOURCE TARGET, as in
interop/README.md."""

import asyncio
import os
import sys

import asyncssh

FILES = 64


async def all_of(jobs):
    """Runs them with so many at a time."""
    permits = asyncio.Semaphore(FILES)

    async def one(job):
        async with permits:
            await job

    await asyncio.gather(*(one(job) for job in jobs))


async def main(verb, host, port, user, key, source, target):
    async with asyncssh.connect(
        host, int(port), username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None
    ) as connection, connection.start_sftp_client() as sftp:
        if verb == "get":
            await sftp.get(source, target)
        elif verb == "put":
            await sftp.put(source, target)
        elif verb == "get-many":
            os.mkdir(target)
            names = [name for name in await sftp.listdir(source) if name not in (".", "..")]
            await all_of(sftp.get(f"{source}/{name}", f"{target}/{name}") for name in names)
        elif verb == "put-many":
            await sftp.mkdir(target)
            names = os.listdir(source)
            await all_of(sftp.put(f"{source}/{name}", f"{target}/{name}") for name in names)
        elif verb == "ls":
            async for entry in sftp.scandir(source):
                print(entry.longname)
        elif verb == "stat":
            print((await sftp.stat(source)).size)
        else:
            raise SystemExit(f"cannot do {verb}")


asyncio.run(main(*sys.argv[1:]))
