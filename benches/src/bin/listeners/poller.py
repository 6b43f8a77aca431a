"""A sequential poller over paramiko, as small as one may be and still be used: the control of `listeners`.

It works as the SFTP consumers of Camel and rdp4j do: one directory after the other, one file after the
other; a file counts as complete when its size and time have stood still for a while; what was delivered is
kept in a file (an idempotent store), written after the delivery.

    poller.py scan  HOST PORT USER KEY ROOT ROUNDS
    poller.py fetch HOST PORT USER KEY ROOT TARGET STORE INTERVAL SETTLE
"""

import os
import stat
import sys
import time

import paramiko


def connect(host, port, user, key):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(host, int(port), user, key_filename=key, look_for_keys=False, allow_agent=False)
    return client.open_sftp()


def scan(sftp, root):
    """Size and time of every file below root, by its path."""
    found = {}
    directories = [""]
    while directories:
        directory = directories.pop()
        for entry in sftp.listdir_attr(root + "/" + directory):
            path = directory + "/" + entry.filename if directory else entry.filename
            if stat.S_ISDIR(entry.st_mode):
                directories.append(path)
            else:
                found[path] = (entry.st_size, entry.st_mtime)
    return found


def measure(sftp, root, rounds):
    known = scan(sftp, root)
    for _ in range(rounds):
        began = time.monotonic()
        found = scan(sftp, root)
        changed = [path for path, facts in found.items() if known.get(path) != facts]
        gone = [path for path in known if path not in found]
        assert not changed and not gone, "the tree changed"
        print(f"{len(found)} {time.monotonic() - began:.6f}", flush=True)


def fetch(sftp, root, target, store, interval, settle):
    done = {}
    if os.path.exists(store):
        for line in open(store):
            path, size, mtime = line.rstrip("\n").rsplit("\t", 2)
            done[path] = (int(size), int(mtime))
    number = time.time_ns()
    seen = {}
    with open(store, "a") as kept:
        while True:
            for path, facts in sorted(scan(sftp, root).items()):
                now = time.monotonic()
                if path.endswith(".part") or done.get(path) == facts:
                    continue
                if seen.get(path, (None, 0))[0] != facts:
                    seen[path] = (facts, now)
                    continue
                if now - seen[path][1] < settle:
                    continue
                number += 1
                to = f"{target}/{path}.{number}"
                os.makedirs(os.path.dirname(to), exist_ok=True)
                try:
                    sftp.get(root + "/" + path, to + ".partial")
                except OSError:
                    continue
                os.rename(to + ".partial", to)
                done[path] = facts
                kept.write(f"{path}\t{facts[0]}\t{facts[1]}\n")
                kept.flush()
            time.sleep(interval)


if __name__ == "__main__":
    mode, host, port, user, key, root = sys.argv[1:7]
    channel = connect(host, port, user, key)
    if mode == "scan":
        measure(channel, root, int(sys.argv[7]))
    else:
        target, store, interval, settle = sys.argv[7:11]
        fetch(channel, root, target, store, float(interval), float(settle))
