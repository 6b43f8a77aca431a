"""A consumer as others write them: it renames a file to take it, fetches it, and removes it."""

import os
import stat
import sys
import time

import paramiko

port, user, key, source, work, sink, end = sys.argv[1:]
PAUSE = 0.01


def files(sftp, below):
    for entry in sftp.listdir_attr(f"{source}/{below}"):
        path = f"{below}/{entry.filename}" if below else entry.filename
        if entry.filename.endswith(".part"):
            continue
        if stat.S_ISDIR(entry.st_mode):
            yield from files(sftp, path)
        else:
            yield path


def take(sftp, path):
    name = f"{source}/{work}/{path.replace('/', '-')}"
    try:
        sftp.rename(f"{source}/{path}", name)
    except OSError:
        return  # another was quicker
    to = f"{sink}/{path}.{end}"
    os.makedirs(os.path.dirname(to), exist_ok=True)
    sftp.get(name, f"{to}.partial")
    os.rename(f"{to}.partial", to)
    sftp.remove(name)


transport = paramiko.Transport(("127.0.0.1", int(port)))
transport.connect(username=user, pkey=paramiko.PKey.from_path(key))
sftp = paramiko.SFTPClient.from_transport(transport)
sftp.mkdir(f"{source}/{work}")
while True:
    for path in files(sftp, ""):
        take(sftp, path)
        time.sleep(PAUSE)
    time.sleep(PAUSE)
