"""The common script of operations on files, by asyncssh (interop/README.md has the protocol)."""

import stat

import asyncssh

from lines import pattern


def name(path):
    """A path as asyncssh takes it: bytes where it is no text."""
    return bytes.fromhex(path["hex"]) if isinstance(path, dict) else path


def attributes(of):
    kind = stat.S_IFMT(of.permissions)
    size = of.size if stat.S_ISREG(of.permissions) else "-"
    return f"{kind:o} {stat.S_IMODE(of.permissions):o} {size}"


async def put(sftp, path, length):
    async with sftp.open(path, "wb") as file:
        await file.write(pattern(length))


async def append(sftp, path, length):
    async with sftp.open(path, "ab") as file:
        await file.write(pattern(length))


async def get(sftp, path, length):
    async with sftp.open(path, "rb") as file:
        data = await file.read()
    return "the same" if data == pattern(length) else f"{len(data)} other bytes"


async def listing(sftp, path):
    return sorted(each for each in await sftp.listdir(path) if each not in (".", ".."))


async def stat_of(sftp, path):
    return attributes(await sftp.stat(path))


async def lstat_of(sftp, path):
    return attributes(await sftp.lstat(path))


async def times(sftp, path):
    of = await sftp.stat(path)
    return f"{of.atime} {of.mtime}"


async def df(sftp, path):
    return "told" if (await sftp.statvfs(path)).blocks > 0 else "nothing"


OPERATIONS = {
    "mkdir": lambda sftp, path: sftp.mkdir(path),
    "rmdir": lambda sftp, path: sftp.rmdir(path),
    "remove": lambda sftp, path: sftp.remove(path),
    "put": put,
    "append": append,
    "get": get,
    "list": listing,
    "stat": stat_of,
    "lstat": lstat_of,
    "times": times,
    "chmod": lambda sftp, path, mode: sftp.chmod(path, mode),
    "utime": lambda sftp, path, a, m: sftp.utime(path, (a, m)),
    "truncate": lambda sftp, path, size: sftp.truncate(path, size),
    "rename": lambda sftp, old, new: sftp.rename(old, new),
    "replace": lambda sftp, old, new: sftp.posix_rename(old, new),
    "link": lambda sftp, old, new: sftp.link(old, new),
    "symlink": lambda sftp, target, link: sftp.symlink(target, link),
    "readlink": lambda sftp, path: sftp.readlink(path),
    "realpath": lambda sftp, path: sftp.realpath(path),
    "df": df,
}


async def one(sftp, operation, arguments):
    work = OPERATIONS.get(operation)
    if work is None:
        return "not here"
    try:
        done = await work(sftp, *[name(each) for each in arguments])
    except asyncssh.SFTPError as error:
        return f"refused: {error.code}"
    if isinstance(done, bytes):
        return done.hex()
    return "done" if done is None or isinstance(done, int) else done


async def files(job):
    async with asyncssh.connect(
        "127.0.0.1",
        job["port"],
        username=job["user"],
        client_keys=[job["key"]],
        known_hosts=None,
        agent_path=None,
        config=None,
    ) as connection:
        async with connection.start_sftp_client() as sftp:
            results = [await one(sftp, step[0], step[1:]) for step in job["steps"]]
    return {"ok": True, "results": results}
