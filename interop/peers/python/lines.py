"""The peer protocol: one JSON object a line in, one a line out (interop/README.md)."""

import json
import sys
import traceback
import warnings

# What is deprecated is used on purpose here.
warnings.simplefilter("ignore")


def answer(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def failure(error):
    told = "".join(traceback.format_exception_only(type(error), error)).strip()
    return {"ok": False, "error": told or repr(error)}


def pattern(length):
    """Bytes that do not repeat within a packet, and that compress badly."""
    out, state = bytearray(), 0x9E3779B9
    while len(out) < length:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out += (state >> 16).to_bytes(6, "big")
    return bytes(out[:length])
