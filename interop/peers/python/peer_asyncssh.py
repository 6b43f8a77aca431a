"""asyncssh as a peer, client and server (interop/README.md has the protocol)."""

import asyncio
import json
import sys

from lines import answer, failure, pattern  # first: it silences warnings at import

import asyncssh
from files_asyncssh import files
from asyncssh import compression, connection, encryption, kex, mac, public_key

HOST = "127.0.0.1"


def names(algorithms):
    return [name.decode() for name in algorithms]


def everything():
    """All that this build has. GSS needs a Kerberos that is not here."""
    keys = names(public_key.get_public_key_algs())
    certificates = names(public_key.get_certificate_algs())
    return {
        "kex": [name for name in names(kex.get_kex_algs()) if not name.startswith("gss-")],
        "host_key": certificates + keys,
        "cipher": names(encryption.get_encryption_algs()),
        "mac": names(mac.get_mac_algs()),
        "compression": names(compression.get_compression_algs()),
        "user_key": certificates + keys,
    }


# Strict key exchange and re-exchanges, counted where every one of them passes.
newkeys = {}
original_send_newkeys = connection.SSHConnection.send_newkeys


def counting_send_newkeys(self, *args, **kwargs):
    newkeys[id(self)] = newkeys.get(id(self), 0) + 1
    return original_send_newkeys(self, *args, **kwargs)


connection.SSHConnection.send_newkeys = counting_send_newkeys


def offer_options(job):
    offer = {**everything(), **job.get("offer", {})}
    return {
        "kex_algs": offer["kex"],
        "encryption_algs": offer["cipher"],
        "mac_algs": offer["mac"],
        "compression_algs": offer["compression"],
        "signature_algs": [
            name.replace("-cert-v01@openssh.com", "@openssh.com" if name.startswith("sk-") else "")
            for name in offer["user_key"]
        ],
        "rekey_bytes": job.get("rekey_bytes", 1 << 30),
    }


class Server(asyncssh.SSHServer):
    """Lets in whom the job names, in the ways it names."""

    def __init__(self, job):
        self.job = job

    def begin_auth(self, username):
        return "none" not in self.job.get("methods", [])

    def password_auth_supported(self):
        return "password" in self.job

    def validate_password(self, username, password):
        return username == self.job["user"] and password == self.job["password"]

    def kbdint_auth_supported(self):
        return "answers" in self.job

    def get_kbdint_challenge(self, username, lang, submethods):
        return "Question", "", "", [(f"{n}: ", False) for n in range(len(self.job["answers"]))]

    def validate_kbdint_response(self, username, responses):
        return list(responses) == self.job["answers"]


async def echo(process):
    while data := await process.stdin.read(65536):
        process.stdout.write(data)
        await process.stdout.drain()
    process.exit(0)


async def serve(job):
    options = offer_options(job)
    del options["signature_algs"]
    keys = [asyncssh.read_private_key(path) for path in job["host_keys"]]
    certificates = [asyncssh.read_certificate(path) for path in job.get("host_certificates", [])]
    server = await asyncssh.listen(
        HOST,
        0,
        server_factory=lambda: Server(job),
        server_host_keys=keys,
        server_host_certs=certificates or (),
        authorized_client_keys=job.get("authorized_keys"),
        process_factory=echo,
        sftp_factory=True,
        encoding=None,
        login_timeout=60,
        **options,
    )
    serving.append(server)
    return {"ok": True, "port": server.sockets[0].getsockname()[1]}


serving = []


async def connect(job):
    options = offer_options(job)
    offer = {**everything(), **job.get("offer", {})}
    known = None
    if "known_hosts" in job:
        known = job["known_hosts"]
    keys = []
    for each in job.get("keys", []):
        key = asyncssh.read_private_key(each["key"])
        if "certificate" in each:
            keys.append((key, asyncssh.read_certificate(each["certificate"])))
        else:
            keys.append((key, None))

    if "agent" in job:
        agent = await asyncssh.connect_agent(job["agent"])
        keys.extend(await agent.get_keys())

    class Client(asyncssh.SSHClient):
        def kbdint_auth_requested(self):
            return "" if "answers" in job else None

        def kbdint_challenge_received(self, name, instructions, lang, prompts):
            return job["answers"][: len(prompts)]

    async with asyncssh.connect(
        HOST,
        job["port"],
        local_addr=(job["from"], 0) if "from" in job else (),
        client_factory=Client,
        username=job["user"],
        password=job.get("password"),
        client_keys=keys or None,
        agent_path=None,
        known_hosts=known,
        server_host_key_algs=offer["host_key"],
        config=None,
        login_timeout=60,
        **options,
    ) as conn:
        data = pattern(job["bytes"])
        process = await conn.create_process(subsystem="echo", encoding=None)

        async def send():
            for at in range(0, len(data), 32768):
                process.stdin.write(data[at : at + 32768])
                await process.stdin.drain()
            process.stdin.write_eof()

        sending = asyncio.ensure_future(send())
        came = bytearray()
        while part := await process.stdout.read(65536):
            came += part
        await sending
        process.close()
        if bytes(came) != data:
            raise ValueError(f"{len(came)} bytes came back, not the {len(data)} sent")
        agreed = {
            "cipher": conn.get_extra_info("send_cipher"),
            "mac": conn.get_extra_info("send_mac"),
            "compression": conn.get_extra_info("send_compression"),
        }
        return {
            "ok": True,
            "bytes": len(came),
            "rekeys": newkeys.get(id(conn), 1) - 1,
            "agreed": agreed,
        }


async def probe(job):
    """Connects and goes no further than the first exchange and its extensions: for tests that stand
    in between. Says what the connection believed."""
    seen = {}
    try:
        async with asyncssh.connect(
            HOST,
            job["port"],
            username=job["user"],
            password=job.get("password"),
            client_keys=None,
            agent_path=None,
            known_hosts=None,
            config=None,
            login_timeout=20,
            kex_algs=["curve25519-sha256"],
            encryption_algs=[job["cipher"]],
            **({"mac_algs": [job["mac"]]} if "mac" in job else {}),
        ) as conn:
            process = await conn.create_process(subsystem="echo", encoding=None)
            process.stdin.write(b"ping")
            process.stdin.write_eof()
            seen["echo"] = (await process.stdout.read()) == b"ping"
            seen["user"] = conn.get_extra_info("username")
            seen["server_sig_algs"] = len(getattr(conn, "_server_sig_algs", ()) or ())
            seen["extensions_seen"] = bool(getattr(conn, "_extensions_received", False))
            return {"ok": True, **seen}
    except (OSError, asyncssh.Error) as error:
        return {**failure(error), **seen}


def describe():
    return {
        "ok": True,
        "name": "asyncssh",
        "version": asyncssh.__version__,
        "has": everything(),
    }


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        job = json.loads(line)
        try:
            if job["do"] == "describe":
                answer(describe())
            elif job["do"] == "serve":
                answer(await serve(job))
            elif job["do"] == "files":
                answer(await asyncio.wait_for(files(job), 60))
            elif job["do"] == "connect":
                answer(await asyncio.wait_for(connect(job), job.get("seconds", 60)))
            elif job["do"] == "probe":
                answer(await asyncio.wait_for(probe(job), job.get("seconds", 60)))
            else:
                raise ValueError(f"cannot do {job['do']}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            answer(failure(error))


asyncio.run(main())
