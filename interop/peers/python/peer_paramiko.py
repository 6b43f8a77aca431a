"""paramiko as a peer, client and server (interop/README.md has the protocol)."""

import json
import socket
import sys
import threading

import paramiko
from paramiko import Transport

from files_paramiko import files
from lines import answer, failure, pattern

HOST = "127.0.0.1"


def everything():
    keys = list(Transport._key_info)
    return {
        "kex": list(Transport._kex_info),
        "host_key": keys,
        "cipher": list(Transport._cipher_info),
        "mac": list(Transport._mac_info),
        "compression": list(Transport._compression_info),
        "user_key": keys,
    }


def prefer(transport, job):
    offer = {**everything(), **job.get("offer", {})}
    # The attributes behind get_security_options(), which does not take certificates' names.
    transport._preferred_kex = tuple(offer["kex"])
    transport._preferred_keys = tuple(offer["host_key"])
    transport._preferred_ciphers = tuple(offer["cipher"])
    transport._preferred_macs = tuple(offer["mac"])
    transport._preferred_compression = tuple(offer["compression"])
    transport._preferred_pubkeys = tuple(offer["user_key"])


def load(each):
    key = paramiko.PKey.from_path(each["key"])
    if "certificate" in each:
        key.load_certificate(each["certificate"])
    return key


class Login(paramiko.ServerInterface):
    def __init__(self, job):
        self.job = job
        self.steps = list(job.get("steps", []))
        self.allowed = []
        if "authorized_keys" in job:
            with open(job["authorized_keys"], encoding="utf-8") as lines:
                for line in lines:
                    words = line.split()
                    if len(words) >= 2 and not line.startswith("cert-authority"):
                        self.allowed.append(words[1])

    def get_allowed_auths(self, username):
        if "steps" in self.job:
            return ",".join(self.steps)
        methods = ["publickey"]
        if "password" in self.job:
            methods.append("password")
        if "answers" in self.job:
            methods.append("keyboard-interactive")
        return ",".join(methods)

    def check_auth_password(self, username, password):
        right = username == self.job["user"] and password == self.job.get("password")
        return self.step("password") if right else paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        right = key.get_base64() in self.allowed
        return self.step("publickey") if right else paramiko.AUTH_FAILED

    def step(self, method):
        """One step of several is not enough, unless it is the last."""
        if self.steps and self.steps[-1] != method:
            return paramiko.AUTH_PARTIALLY_SUCCESSFUL
        return paramiko.AUTH_SUCCESSFUL

    def check_auth_none(self, username):
        open_to_all = "none" in self.job.get("methods", [])
        return paramiko.AUTH_SUCCESSFUL if open_to_all else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username, submethods):
        if "answers" not in self.job:
            return paramiko.AUTH_FAILED
        questions = paramiko.InteractiveQuery("Question", "")
        for number in range(len(self.job["answers"])):
            questions.add_prompt(f"{number}: ", False)
        return questions

    def check_auth_interactive_response(self, responses):
        right = list(responses) == self.job["answers"]
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_UNKNOWN_CHANNEL_TYPE

    def check_channel_subsystem_request(self, channel, name):
        if name != "echo":
            return False
        threading.Thread(target=echo, args=(channel,), daemon=True).start()
        return True

    def check_channel_exec_request(self, channel, command):
        if command != b"cat":
            return False
        threading.Thread(target=echo, args=(channel,), daemon=True).start()
        return True


def echo(channel):
    while data := channel.recv(65536):
        channel.sendall(data)
    channel.send_exit_status(0)
    channel.close()


def one_connection(sock, job, keys):
    transport = Transport(sock)
    try:
        for key in keys:
            transport.add_server_key(key)
        prefer(transport, job)
        # The server offers the types that it has keys for; paramiko has no host certificates.
        if "rekey_bytes" in job:
            transport.packetizer.REKEY_BYTES = job["rekey_bytes"]
        transport.start_server(server=Login(job))
        while transport.is_active():
            transport.join(0.2)
    except (paramiko.SSHException, EOFError, OSError):
        pass
    finally:
        transport.close()


def serve(job):
    keys = [paramiko.PKey.from_path(path) for path in job["host_keys"]]
    if not Transport.load_server_moduli():
        raise FileNotFoundError("no moduli for the group exchange")
    listener = socket.create_server((HOST, 0))

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=one_connection, args=(sock, job, keys), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return {"ok": True, "port": listener.getsockname()[1]}


def connect(job):
    source = (job["from"], 0) if "from" in job else None
    sock = socket.create_connection((HOST, job["port"]), timeout=60, source_address=source)
    transport = Transport(sock)
    newkeys = [0]
    original = transport._activate_outbound

    def counting():
        newkeys[0] += 1
        return original()

    transport._activate_outbound = counting
    try:
        prefer(transport, job)
        if "compression" in job.get("offer", {}):
            transport.use_compression(job["offer"]["compression"] != ["none"])
            transport._preferred_compression = tuple(job["offer"]["compression"])
        transport.start_client(timeout=60)
        user = job["user"]
        for key in job.get("keys", []):
            transport.auth_publickey(user, load(key))
        if job.get("agent"):
            raise NotImplementedError("no agent")
        if "password" in job and not transport.is_authenticated():
            transport.auth_password(user, job["password"], fallback=False)
        if "answers" in job and not transport.is_authenticated():
            transport.auth_interactive(user, lambda title, text, prompts: job["answers"][: len(prompts)])
        if not transport.is_authenticated():
            transport.auth_none(user)
        channel = transport.open_session(timeout=60)
        channel.settimeout(60)
        channel.invoke_subsystem("echo")
        data = pattern(job["bytes"])
        half = len(data) // 2

        def send():
            channel.sendall(data[:half])
            if job.get("rekey_bytes"):
                transport.renegotiate_keys()
            channel.sendall(data[half:])
            channel.shutdown_write()

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        came = bytearray()
        while part := channel.recv(65536):
            came += part
        sending.join(60)
        if bytes(came) != data:
            raise ValueError(f"{len(came)} bytes came back, not the {len(data)} sent")
        agreed = {
            "cipher": transport.local_cipher,
            "mac": transport.local_mac,
            "compression": transport.local_compression,
            "host_key": transport.host_key_type,
        }
        return {"ok": True, "bytes": len(came), "rekeys": newkeys[0] - 1, "agreed": agreed}
    finally:
        transport.close()


def describe():
    return {"ok": True, "name": "paramiko", "version": paramiko.__version__, "has": everything()}


WORK = {"describe": lambda job: describe(), "serve": serve, "connect": connect, "files": files}

for line in sys.stdin:
    try:
        job = json.loads(line)
        answer(WORK[job["do"]](job))
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        answer(failure(error))
