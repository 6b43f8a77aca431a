"""A poller as most are written: one directory after the other, each listed to its end.

poll_paramiko.py HOST PORT USER KEY DIRECTORY: prints how many files it saw.
"""

import stat
import sys

import paramiko


def main() -> None:
    host, port, user, key, root = sys.argv[1:6]
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        host,
        port=int(port),
        username=user,
        key_filename=key,
        look_for_keys=False,
        allow_agent=False,
    )
    sftp = client.open_sftp()
    known: dict[str, tuple[int, int]] = {}
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        for entry in sftp.listdir_attr(directory):
            path = f"{directory}/{entry.filename}"
            if stat.S_ISDIR(entry.st_mode):
                waiting.append(path)
            else:
                known[path] = (entry.st_size, entry.st_mtime)
    print(len(known))
    client.close()


main()
