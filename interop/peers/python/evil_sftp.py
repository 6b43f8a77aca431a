"""An SFTP server on standard input and output whose listings hold names that lead elsewhere.

Version 3 (draft-ietf-secsh-filexfer-02), for `cli/tests/faults`: a directory with 300 evil names and
one good one. Every second name is a file of three bytes, every fourth a directory, the others links.
"""

import struct
import sys

EVIL = [
    b"..", b".", b"", b"/", b"//", b"\\", b"..\\x", b"../x", b"../../x", b"/tmp/ketch-evil", b"a/b",
    b"x/", b"x/..", b"x/../../y", b"./x", b"../", b"..//..", b"a\0b", b"\0", b"..\0", b"x\0/../y",
    b"\\\\host\\share", b"C:\\x", b"C:/x", b"~/x", b"$HOME/x", b"%2e%2e%2fx", b"/../x", b"/./", b"a//b",
]
SUFFIXES = [b"", b"1", b"/z", b"\\z", b"\0z", b"/..", b"/../..", b"/\xff", b"/ ", b"/."]
NAMES = ([name + suffix for suffix in SUFFIXES for name in EVIL] + [b"n" * 300])[:300]

VERSION, STATUS, HANDLE, DATA, NAME, ATTRS = 2, 101, 102, 103, 104, 105
FILE, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777


def string(value):
    return struct.pack(">I", len(value)) + value


def attrs(mode):
    return struct.pack(">IQI", 5, 3, mode)


def status(code):
    return STATUS, struct.pack(">I", code) + string(b"") + string(b"")


def names(entries):
    body = struct.pack(">I", len(entries))
    return NAME, body + b"".join(string(name) + string(b"") + attrs(mode) for name, mode in entries)


def mode_of(number):
    return (FILE, DIRECTORY, FILE, LINK)[number % 4]


LISTING = [(name, mode_of(number)) for number, name in enumerate(NAMES)] + [(b"good", FILE)]


def read(length):
    data = sys.stdin.buffer.read(length)
    if len(data) < length:
        sys.exit(0)
    return data


def main():
    handles = {}
    while True:
        (length,) = struct.unpack(">I", read(4))
        packet = read(length)
        kind, number = packet[0], packet[1:5]
        if kind == 1:
            answer(VERSION, struct.pack(">I", 3))
            continue
        (text_length,) = struct.unpack(">I", packet[5:9])
        text, rest = packet[9 : 9 + text_length], packet[9 + text_length :]
        reply = status(8)
        if kind in (3, 11):  # OPEN, OPENDIR
            key = b"%d" % len(handles)
            handles[key] = list(LISTING) if text == b"/t" else []
            reply = HANDLE, string(key)
        elif kind == 4:  # CLOSE
            reply = status(0)
        elif kind == 5:  # READ
            (offset,) = struct.unpack(">Q", rest[:8])
            reply = (DATA, string(b"abc"[offset:])) if offset < 3 else status(1)
        elif kind in (7, 8, 17):  # LSTAT, FSTAT, STAT
            reply = ATTRS, attrs(DIRECTORY if text == b"/t" else FILE)
        elif kind == 12:  # READDIR
            left = handles.get(text, [])
            reply = names(left[:70]) if left else status(1)
            del left[:70]
        elif kind == 16:  # REALPATH
            reply = names([(text, DIRECTORY)])
        answer(reply[0], number + reply[1])


def answer(kind, body):
    sys.stdout.buffer.write(struct.pack(">IB", len(body) + 1, kind) + body)
    sys.stdout.buffer.flush()


main()
