// Node's ssh2 as a peer, client and server; interop/README.md has the protocol.
'use strict';

const fs = require('fs');
const readline = require('readline');
const ssh2 = require('ssh2');
const constants = require('ssh2/lib/protocol/constants.js');

const { Client, Server, utils } = ssh2;
const HOST = '127.0.0.1';

function everything() {
  return {
    kex: constants.SUPPORTED_KEX,
    host_key: constants.SUPPORTED_SERVER_HOST_KEY,
    // It knows GCM under two names; the short one is none of SSH's.
    cipher: constants.SUPPORTED_CIPHER,
    mac: constants.SUPPORTED_MAC,
    compression: constants.SUPPORTED_COMPRESSION,
    user_key: constants.SUPPORTED_SERVER_HOST_KEY,
  };
}

function algorithms(job) {
  const offer = { ...everything(), ...(job.offer || {}) };
  return {
    kex: offer.kex,
    serverHostKey: offer.host_key,
    cipher: offer.cipher,
    hmac: offer.mac,
    compress: offer.compression,
  };
}

function pattern(length) {
  const out = Buffer.alloc(length + 8);
  let state = 0x9e3779b9n;
  let at = 0;
  while (at < length) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    out.writeBigUInt64BE(state >> 16n << 16n, at);
    at += 6;
  }
  return out.subarray(0, length);
}

function connect(job) {
  return new Promise((resolve, reject) => {
    const client = new Client();
    let exchanges = 0;
    let agreed = {};
    const methods = [];
    for (const key of job.keys || []) {
      methods.push({ type: 'publickey', username: job.user, key: fs.readFileSync(key.key) });
    }
    if (job.agent) methods.push({ type: 'agent', username: job.user, agent: job.agent });
    if ('password' in job) methods.push({ type: 'password', username: job.user, password: job.password });
    if ('answers' in job) {
      methods.push({
        type: 'keyboard-interactive',
        username: job.user,
        prompt: (name, text, lang, prompts, finish) => finish(job.answers.slice(0, prompts.length)),
      });
    }
    methods.push({ type: 'none', username: job.user });
    client.on('handshake', (negotiated) => {
      exchanges += 1;
      agreed = {
        kex: negotiated.kex,
        host_key: negotiated.serverHostKey,
        cipher: negotiated.cs.cipher,
        mac: negotiated.cs.mac,
        compression: negotiated.cs.compress,
      };
    });
    client.on('error', reject);
    client.on('close', () => reject(new Error('the connection was closed')));
    client.on('ready', () => {
      client.subsys('echo', (error, stream) => {
        if (error) return reject(error);
        const data = pattern(job.bytes);
        const came = [];
        let length = 0;
        stream.on('data', (part) => {
          came.push(part);
          length += part.length;
        });
        stream.on('close', () => {
          client.end();
          if (!Buffer.concat(came).equals(data)) {
            return reject(new Error(`${length} bytes came back, not the ${data.length} sent`));
          }
          resolve({ ok: true, bytes: length, rekeys: exchanges - 1, agreed });
        });
        const half = data.length >> 1;
        stream.write(data.subarray(0, half), () => {
          const rest = () => stream.end(data.subarray(half));
          if (!job.rekey_bytes) return rest();
          // The client has no method of its own for this; the server's is the same call.
          client._protocol.rekey();
          rest();
        });
      });
    });
    client.connect({
      host: HOST,
      port: job.port,
      localAddress: job.from,
      username: job.user,
      readyTimeout: 60000,
      algorithms: algorithms(job),
      authHandler: methods,
      hostVerifier: () => true,
    });
  });
}

const serving = [];

function serve(job) {
  const allowed = new Set();
  if (job.authorized_keys) {
    for (const line of fs.readFileSync(job.authorized_keys, 'utf8').split('\n')) {
      const words = line.split(' ');
      if (words.length >= 2 && words[0] !== 'cert-authority') allowed.add(words[1]);
    }
  }
  const names = job.steps || ['publickey'];
  if (!job.steps && 'password' in job) names.push('password');
  if (!job.steps && 'answers' in job) names.push('keyboard-interactive');
  return new Promise((resolve, reject) => {
    const server = new Server(
      { hostKeys: job.host_keys.map((path) => fs.readFileSync(path)), algorithms: algorithms(job) },
      (client) => {
        client.on('error', () => {});
        let step = 0;
        client.on('authentication', (context) => {
          if (context.method === 'none' && (job.methods || []).includes('none')) return context.accept();
          if (job.steps && context.method !== job.steps[step]) return context.reject(job.steps, step > 0);
          // A step that is right is not enough, unless it is the last.
          const passed = () => {
            step += 1;
            if (job.steps && step < job.steps.length) return context.reject(job.steps.slice(step), true);
            return context.accept();
          };
          if (context.method === 'password' && context.password === job.password) return passed();
          if (context.method === 'publickey') {
            const line = context.key.data.toString('base64');
            if (!allowed.has(line)) return context.reject(names);
            if (!context.signature) return context.accept();
            const key = utils.parseKey(context.key.data);
            const right = key.verify(context.blob, context.signature, context.hashAlgo) === true;
            return right ? passed() : context.reject(names);
          }
          if (context.method === 'keyboard-interactive' && 'answers' in job) {
            return context.prompt(
              job.answers.map((_, number) => ({ prompt: `${number}: `, echo: false })),
              (answers) =>
                JSON.stringify(answers) === JSON.stringify(job.answers) ? context.accept() : context.reject(names),
            );
          }
          return context.reject(names);
        });
        client.on('ready', () => {
          client.on('session', (accept) => {
            const session = accept();
            const echo = (stream) => {
              let came = 0;
              stream.on('error', () => {});
              stream.on('data', (part) => {
                const before = came;
                came += part.length;
                // It begins no exchange by itself, so it is told to, once.
                if (before < job.rekey_bytes && came >= job.rekey_bytes) client.rekey();
              });
              stream.on('data', (part) => stream.write(part));
              stream.on('end', () => {
                stream.exit(0);
                stream.end();
              });
            };
            session.on('subsystem', (open, refuse, info) => (info.name === 'echo' ? echo(open()) : refuse()));
            session.on('exec', (open, refuse, info) => (info.command === 'cat' ? echo(open()) : refuse()));
          });
        });
      },
    );
    server.on('error', reject);
    server.listen(0, HOST, () => resolve({ ok: true, port: server.address().port }));
    serving.push(server);
  });
}

const work = {
  describe: async () => ({
    ok: true,
    name: 'ssh2',
    version: require('ssh2/package.json').version,
    has: everything(),
  }),
  serve,
  connect,
  files: require('./files_ssh2.js')(pattern),
};

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
process.on('uncaughtException', (error) => process.stderr.write(`${error.stack}\n`));

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    try {
      answer(await work[job.do](job));
    } catch (error) {
      answer({ ok: false, error: `${error.message} (${error.level || error.code || error.name})` });
    }
  }
  process.exit(0);
})();
