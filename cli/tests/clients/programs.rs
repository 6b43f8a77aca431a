//! The script for clients that are commands: each in its own words, and as much of it as it has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::Outcome;
use crate::servers::Server;

/// Seconds since 1970 of what is called `timed` here.
const TIMED: u64 = 1_100_000_000;

/// Files to be sent, in `local`.
fn local_files(local: &Path) {
    let block: Vec<u8> = (0..=250).collect();
    let bytes = |len: usize| -> Vec<u8> { block.repeat(len / block.len() + 1)[..len].to_vec() };
    fs::create_dir_all(local.join("tree/inner/empty directory")).unwrap();
    for (name, len) in [
        ("small", 100),
        ("empty", 0),
        ("large", 3_000_000),
        ("timed", 10),
        ("tree/a file", 5000),
        ("tree/Grüße 漢字", 1),
        ("tree/inner/quote's \"b\"", 70_000),
        ("tree/inner/empty", 0),
    ] {
        fs::write(local.join(name), bytes(len)).unwrap();
    }
    let timed = fs::File::options()
        .write(true)
        .open(local.join("timed"))
        .unwrap();
    timed
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(TIMED))
        .unwrap();
    fs::set_permissions(local.join("timed"), fs::Permissions::from_mode(0o640)).unwrap();
}

const SSH_OPTIONS: [&str; 7] = [
    "UserKnownHostsFile=/dev/null",
    "GlobalKnownHostsFile=/dev/null",
    "StrictHostKeyChecking=no",
    "IdentityAgent=none",
    "IdentitiesOnly=yes",
    "BatchMode=yes",
    "LogLevel=ERROR",
];

/// Options of OpenSSH's programs; the port is spelt differently by each.
pub(crate) fn ssh_options(server: &Server) -> Vec<String> {
    let options = SSH_OPTIONS.iter().map(|each| (*each).to_owned());
    let port = format!("Port={}", server.port);
    let mut all = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned()];
    all.push(server.key.display().to_string());
    for option in options.chain([port]) {
        all.extend(["-o".to_owned(), option]);
    }
    all
}

fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{word}'");
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// What a program said, both streams as they came, and whether it was content.
fn said(shell: &str, local: &Path) -> (String, bool) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["60", "sh", "-c", &format!("exec 2>&1; {shell}")])
        .current_dir(local)
        .env("HOME", home.path())
        .env("LC_ALL", "C.UTF-8")
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.success())
}

/// Cuts what was said into commands: each begins with a line that starts with `prompt`.
fn by_command(text: &str, prompt: &str, server: &Server, local: &Path) -> Outcome {
    let mut outcome = Outcome::new();
    for line in text.lines() {
        // A progress meter writes over itself.
        let line = line.rsplit('\r').next().unwrap_or(line);
        if let Some(command) = line.strip_prefix(prompt) {
            outcome.push((command.trim().to_owned(), String::new()));
        } else if let Some((_, answer)) = outcome.last_mut() {
            if !answer.is_empty() {
                answer.push('\n');
            }
            answer.push_str(&plain(line, server, local));
        }
    }
    // The same command twice is two steps.
    for at in 0..outcome.len() {
        let earlier = outcome[..at]
            .iter()
            .filter(|step| step.0 == outcome[at].0)
            .count();
        if earlier > 0 {
            outcome[at].0 = format!("{} ({})", outcome[at].0, earlier + 1);
        }
    }
    outcome
}

/// A line without what is another on each server: where it lives, the time, how full the disk is.
fn plain(line: &str, server: &Server, local: &Path) -> String {
    let mut line = line.replace(&local.display().to_string(), "HERE");
    if !server.prefix().is_empty() {
        line = line.replace(&format!("{}/", server.prefix()), "/");
        line = line.replace(&server.prefix(), "/");
    }
    // rclone begins with the time.
    let line = line
        .split_once(" ERROR : ")
        .map_or(&*line, |(_, said)| said);
    line.trim_end().to_owned()
}

pub(crate) fn sftp(server: &Server, local: &Path) -> Outcome {
    local_files(local);
    let commands = "\
pwd
mkdir d
mkdir d
cd d
pwd
put HERE/small
put HERE/small over
put HERE/large over
put HERE/empty
put -p HERE/timed
ls -1
get over HERE/got
get -p timed HERE/timed
get none HERE/none
rename small renamed
rename over renamed
rename none x
ln renamed second
ln -s renamed link
ln -s none dangling
ls -1 link
chmod 600 renamed
chmod 600 none
mkdir -x
put HERE/tree
put -R HERE/tree
get -R tree HERE/back
cd tree
ls -1
ls -1 inner
cd ..
reput HERE/large renamed
put HERE/small partial
reput HERE/large partial
get partial HERE/partial
truncate
copy renamed copied
cp renamed none/copied
rm empty
rm none
rm tree
rmdir tree
mkdir gone
rmdir gone
rmdir gone
cd none
cd ..
put HERE/small \"a name  with spaces\"
put HERE/small Grüße
put HERE/small \"quote's\"
put HERE/small locked/f
rm locked/kept
ls -1 locked
ls -1 none
lpwd
version
";
    // Each line on its own: a failed one does not end the batch.
    let commands = commands.replace("HERE", &local.display().to_string());
    let lines: String = commands.lines().map(|line| format!("-{line}\n")).collect();
    let batch = server.scratch("batch");
    fs::write(&batch, lines).unwrap();
    let shell = format!(
        "sftp {} -b {} {}@127.0.0.1",
        quoted(&ssh_options(server)),
        batch.display(),
        server.user
    );
    let (text, ended) = said(&shell, local);
    assert!(ended, "sftp: {text}");
    by_command(&text, "sftp> -", server, local)
        .into_iter()
        .map(|(step, answer)| (step.replace(&local.display().to_string(), "HERE"), answer))
        .collect()
}

pub(crate) fn scp(server: &Server, local: &Path) -> Outcome {
    local_files(local);
    let at = format!("{}@127.0.0.1", server.user);
    let options = quoted(&ssh_options(server));
    let mut outcome = Outcome::new();
    for command in [
        "scp small AT:copied",
        "scp large AT:copied",
        "scp empty AT:",
        "scp -p timed AT:timed",
        "scp -r tree AT:tree",
        "scp -r AT:tree back",
        "scp AT:copied got",
        "scp -p AT:timed timed",
        "scp AT:none none",
        "scp small AT:none/f",
        "scp small AT:locked/f",
        "scp 'AT:tree/*' .",
    ] {
        let shell = command
            .replacen("scp", &format!("scp -s {options}"), 1)
            .replace("AT", &at);
        let (text, ended) = said(&shell, local);
        let refused = match ended {
            true => "done".to_owned(),
            false => format!("refused: {}", plain(text.trim(), server, local)),
        };
        outcome.push((command.to_owned(), refused));
    }
    outcome
}

pub(crate) fn lftp(server: &Server, local: &Path) -> Outcome {
    local_files(local);
    let mut script =
        String::from("set net:max-retries 1\nset cmd:fail-exit no\nset sftp:auto-confirm yes\n");
    let ssh = quoted(&ssh_options(server)).replace('\'', "");
    script.push_str(&format!("set sftp:connect-program \"ssh -a -x {ssh}\"\n"));
    script.push_str(&format!(
        "open -u {},x sftp://127.0.0.1:{}\n",
        server.user, server.port
    ));
    let steps = [
        "mkdir d",
        "put small -o d/f",
        "put large -o d/f",
        "put empty -o d/empty",
        "cls -1 d",
        "get d/f -o got",
        "pget -n 3 d/f -o pieces",
        "get none -o none",
        "mv d/f d/g",
        "mv none x",
        "chmod 600 d/g",
        "ln -s g d/l",
        "mirror -R tree d/tree",
        "cls -1 d/tree/inner",
        "mirror d/tree back",
        "put small -o d/part",
        "put -c large -o d/part",
        "cat d/empty",
        "put small -o locked/f",
        "rm locked/kept",
        "rm d/empty",
        "rm none",
        "rmdir d",
        "mkdir -p a/b/c",
        "rm -r a",
        "put small -o 'a name  with spaces'",
        "put small -o Grüße",
        "cls -1 none",
        "cls -1",
    ];
    for (number, step) in steps.iter().enumerate() {
        script.push_str(&format!(
            "echo @{number}\n{step} && echo done || echo refused\n"
        ));
    }
    let file = server.scratch("script");
    fs::write(&file, script).unwrap();
    let (text, _) = said(&format!("lftp -f {}", file.display()), local);
    let told = by_command(&text, "@", server, local);
    // What it says beside is in the server's words.
    let words = |answer: &str| {
        let lines = answer.lines().filter(|line| {
            ![
                "Access failed",
                "rm: ",
                "get: ",
                "put: ",
                "mv: ",
                "ln: ",
                "mkdir: ",
                "rmdir: ",
                "cls: ",
                "chmod: ",
            ]
            .iter()
            .any(|start| line.starts_with(start))
                && !line.contains("bytes transferred")
                && !line.contains("Total: ")
                && !line.contains(" ok, ")
                && !line.starts_with("New: ")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(told.len(), steps.len(), "{text}");
    let step = |number: &str| steps[number.parse::<usize>().unwrap()].to_owned();
    told.iter()
        .map(|(number, answer)| (step(number), words(answer)))
        .collect()
}

pub(crate) fn psftp(server: &Server, local: &Path) -> Outcome {
    local_files(local);
    let key = server.scratch("key.ppk");
    let (text, made) = said(
        &format!(
            "puttygen {} -O private -o {}",
            server.key.display(),
            key.display()
        ),
        local,
    );
    assert!(made, "puttygen: {text}");
    let (text, _) = said(
        &format!(
            "ssh-keyscan -t ed25519 -p {} 127.0.0.1 | ssh-keygen -lf -",
            server.port
        ),
        local,
    );
    let print = text
        .split_whitespace()
        .find(|word| word.starts_with("SHA256:"));
    let print = print.unwrap_or_else(|| panic!("no fingerprint: {text}"));
    let commands = "\
pwd
mkdir d
mkdir d
cd d
put small
put large over
put empty
get over got
get none none
mv small renamed
mv over renamed
mv none x
chmod 600 renamed
put -r tree
get -r tree back
reput large renamed
del empty
del none
rmdir tree
cd ..
mkdir gone
rmdir gone
put small \"a name  with spaces\"
put small locked/f
del locked/kept
cd none
";
    let batch = server.scratch("batch");
    fs::write(&batch, commands).unwrap();
    let shell = format!(
        "psftp -batch -be -bc -b {} -P {} -i {} -hostkey {print} {}@127.0.0.1",
        batch.display(),
        server.port,
        key.display(),
        server.user
    );
    let (text, _) = said(&shell, local);
    by_command(&text, "psftp> ", server, local)
}

pub(crate) fn rclone(server: &Server, local: &Path) -> Outcome {
    local_files(local);
    let options = format!(
        "--config /dev/null --retries 1 --low-level-retries 1 -q --sftp-host 127.0.0.1 \
         --sftp-port {} --sftp-user {} --sftp-key-file {} --sftp-shell-type none \
         --sftp-disable-hashcheck",
        server.port,
        server.user,
        server.key.display()
    );
    let mut outcome = Outcome::new();
    for command in [
        "copy tree :sftp:tree",
        "copyto timed :sftp:timed",
        "copyto large :sftp:large",
        "copyto small :sftp:large",
        "lsf -R :sftp:tree",
        "sync tree/inner :sftp:tree",
        "check tree/inner :sftp:tree",
        "moveto :sftp:large :sftp:moved",
        "copy :sftp:tree back",
        "deletefile :sftp:none",
        "copyto small :sftp:locked/f",
        "mkdir :sftp:made/deep",
        "rmdir :sftp:made/deep",
        "purge :sftp:tree/empty\\ directory",
        "about :sftp: --json",
    ] {
        let (text, ended) = said(&format!("rclone {command} {options}"), local);
        let answer = match (ended, command) {
            (false, _) => "refused".to_owned(),
            (true, "about :sftp: --json") => "told".to_owned(),
            (true, _) => plain(&text, server, local),
        };
        outcome.push((command.to_owned(), answer));
    }
    outcome
}
