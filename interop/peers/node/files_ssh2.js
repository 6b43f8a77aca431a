// The common script of operations on files, by Node's ssh2; interop/README.md has the protocol.
'use strict';

const fs = require('fs');
const { Client } = require('ssh2');

const TYPE = 0o170000;

function attributes(of) {
  const size = (of.mode & TYPE) === 0o100000 ? of.size : '-';
  return `${(of.mode & TYPE).toString(8)} ${(of.mode & 0o7777).toString(8)} ${size}`;
}

// A path as ssh2 takes it: only text.
const name = (path) => path;

module.exports = function makeFiles(pattern) {
  const call = (sftp, method, ...args) =>
    new Promise((resolve, reject) => {
      sftp[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
    });

  async function write(sftp, path, length, flags) {
    const handle = await call(sftp, 'open', path, flags);
    const data = pattern(length);
    try {
      const pieces = [];
      const at = flags === 'a' ? (await call(sftp, 'fstat', handle)).size : 0;
      for (let done = 0; done < data.length; done += 32768) {
        const len = Math.min(32768, data.length - done);
        pieces.push(call(sftp, 'write', handle, data, done, len, at + done));
      }
      await Promise.all(pieces);
    } finally {
      await call(sftp, 'close', handle);
    }
  }

  const operations = {
    mkdir: (sftp, path) => call(sftp, 'mkdir', path),
    rmdir: (sftp, path) => call(sftp, 'rmdir', path),
    remove: (sftp, path) => call(sftp, 'unlink', path),
    put: (sftp, path, length) => write(sftp, path, length, 'w'),
    append: (sftp, path, length) => write(sftp, path, length, 'a'),
    get: async (sftp, path, length) => {
      const data = await call(sftp, 'readFile', path);
      return data.equals(pattern(length)) ? 'the same' : `${data.length} other bytes`;
    },
    list: async (sftp, path) => (await call(sftp, 'readdir', path)).map((each) => each.filename).sort(),
    stat: async (sftp, path) => attributes(await call(sftp, 'stat', path)),
    lstat: async (sftp, path) => attributes(await call(sftp, 'lstat', path)),
    times: async (sftp, path) => {
      const of = await call(sftp, 'stat', path);
      return `${of.atime} ${of.mtime}`;
    },
    chmod: (sftp, path, mode) => call(sftp, 'chmod', path, mode),
    utime: (sftp, path, a, m) => call(sftp, 'utimes', path, a, m),
    truncate: (sftp, path, size) => call(sftp, 'setstat', path, { size }),
    rename: (sftp, from, to) => call(sftp, 'rename', from, to),
    replace: (sftp, from, to) => call(sftp, 'ext_openssh_rename', from, to),
    link: (sftp, from, to) => call(sftp, 'ext_openssh_hardlink', from, to),
    symlink: (sftp, target, link) => call(sftp, 'symlink', target, link),
    readlink: (sftp, path) => call(sftp, 'readlink', path),
    realpath: (sftp, path) => call(sftp, 'realpath', path),
    df: async (sftp, path) => {
      const space = await call(sftp, 'ext_openssh_statvfs', path);
      return space.f_blocks > 0 ? 'told' : 'nothing';
    },
  };

  async function one(sftp, [operation, ...args]) {
    const work = operations[operation];
    if (!work || args.some((each) => typeof each === 'object')) return 'not here';
    try {
      const done = await work(sftp, ...args.map(name));
      return done === undefined ? 'done' : done;
    } catch (error) {
      return `refused: ${error.code}`;
    }
  }

  return (job) =>
    new Promise((resolve, reject) => {
      const client = new Client();
      client.on('error', reject);
      client.on('ready', () => {
        client.sftp(async (error, sftp) => {
          if (error) return reject(error);
          const results = [];
          try {
            for (const step of job.steps) results.push(await one(sftp, step));
          } catch (failure) {
            return reject(failure);
          }
          client.end();
          return resolve({ ok: true, results });
        });
      });
      client.connect({
        host: '127.0.0.1',
        port: job.port,
        username: job.user,
        privateKey: fs.readFileSync(job.key),
        hostVerifier: () => true,
        readyTimeout: 60000,
      });
    });
};
