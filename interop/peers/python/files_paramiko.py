"""The common script of operations on files, by paramiko (interop/README.md has the protocol)."""

import os
import stat

import paramiko

from lines import pattern


def name(path):
    """A path as paramiko takes it: bytes where it is no text."""
    return bytes.fromhex(path["hex"]) if isinstance(path, dict) else path


def attributes(of):
    kind = stat.S_IFMT(of.st_mode)
    size = of.st_size if stat.S_ISREG(of.st_mode) else "-"
    return f"{kind:o} {stat.S_IMODE(of.st_mode):o} {size}"


def put(sftp, path, length):
    with sftp.open(path, "w") as file:
        file.set_pipelined(True)
        file.write(pattern(length))


def append(sftp, path, length):
    with sftp.open(path, "a") as file:
        file.write(pattern(length))


def get(sftp, path, length):
    with sftp.open(path, "r") as file:
        data = file.read()
    return "the same" if data == pattern(length) else f"{len(data)} other bytes"


def listing(sftp, path):
    return sorted(sftp.listdir(path))


OPERATIONS = {
    "mkdir": lambda sftp, path: sftp.mkdir(path),
    "rmdir": lambda sftp, path: sftp.rmdir(path),
    "remove": lambda sftp, path: sftp.remove(path),
    "put": put,
    "append": append,
    "get": get,
    "list": listing,
    "stat": lambda sftp, path: attributes(sftp.stat(path)),
    "lstat": lambda sftp, path: attributes(sftp.lstat(path)),
    "times": lambda sftp, path: f"{sftp.stat(path).st_atime} {sftp.stat(path).st_mtime}",
    "chmod": lambda sftp, path, mode: sftp.chmod(path, mode),
    "utime": lambda sftp, path, a, m: sftp.utime(path, (a, m)),
    "truncate": lambda sftp, path, size: sftp.truncate(path, size),
    "rename": lambda sftp, old, new: sftp.rename(old, new),
    "replace": lambda sftp, old, new: sftp.posix_rename(old, new),
    "symlink": lambda sftp, target, link: sftp.symlink(target, link),
    "readlink": lambda sftp, path: sftp.readlink(path),
    "realpath": lambda sftp, path: sftp.normalize(path),
}


def one(sftp, operation, arguments):
    work = OPERATIONS.get(operation)
    if work is None:
        return "not here"
    try:
        done = work(sftp, *[name(each) for each in arguments])
    except OSError as error:
        code = os.strerror(error.errno) if error.errno else "failure"
        return f"refused: {code}"
    return "done" if done is None else done


def files(job):
    transport = paramiko.Transport(("127.0.0.1", job["port"]))
    try:
        transport.connect(username=job["user"], pkey=paramiko.PKey.from_path(job["key"]))
        with paramiko.SFTPClient.from_transport(transport) as sftp:
            results = [one(sftp, step[0], step[1:]) for step in job["steps"]]
    finally:
        transport.close()
    return {"ok": True, "results": results}
