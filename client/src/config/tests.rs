//! Configurations as a whole, and `ssh -G` as an oracle for what they mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::{Failure as _, Kind};

/// A home directory with an ssh_config in it.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".ssh")).unwrap();
        let home = Self { dir };
        home.write("config", config);
        home
    }

    /// Writes a file below `.ssh`.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(".ssh").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(".ssh").join(name)
    }

    fn local(&self) -> Local {
        let mut local = Local::for_tests(self.dir.path());
        local.machine_dir = Some(self.dir.path().join("machine"));
        local.set_variable("HOME", self.dir.path().to_str().unwrap());
        local
    }

    fn config(&self) -> SshConfig {
        SshConfig::file(self.path("config"))
    }

    fn resolve(&self, host: &str) -> Result<HostConfig, ConfigError> {
        self.config()
            .resolve_on(&self.local(), &host.parse().unwrap(), None, None)
    }
}

fn resolve(config: &str, host: &str) -> HostConfig {
    Home::new(config).resolve(host).unwrap()
}

fn fault(config: &str) -> Fault {
    match Home::new(config).resolve("host") {
        Err(ConfigError::Line { fault, .. }) => fault,
        other => panic!("{config:?}: {other:?}"),
    }
}

#[test]
fn the_first_value_counts_and_blocks_apply_where_they_say() {
    let config = resolve(
        "Host files !files.example\n  HostName sftp.%h.example\n  Port 2222\n\
         Host other\n  User nobody\n\
         Host f*\n  Port 22\n  User ann\n",
        "files",
    );
    assert_eq!(config.host.as_str(), "sftp.files.example");
    assert_eq!(config.port, Some(2222));
    assert_eq!(config.user.unwrap().as_str(), "ann");
    assert_eq!(config.named.as_str(), "files");
}

#[test]
fn what_was_given_comes_before_options_and_these_before_files() {
    let home = Home::new("Port 1\nUser file\nCompression yes\n");
    let config = home.config().option("Port=2").option("User option");
    let host = "host".parse().unwrap();
    let found = config
        .resolve_on(&home.local(), &host, None, Some(3))
        .unwrap();
    assert_eq!(found.port, Some(3));
    assert_eq!(found.user.unwrap().as_str(), "option");
    assert_eq!(found.compression, Some(true));
    let user = "given".parse().unwrap();
    let found = config
        .resolve_on(&home.local(), &host, Some(&user), None)
        .unwrap();
    assert_eq!(found.user.unwrap().as_str(), "given");
}

#[test]
fn the_users_file_comes_before_the_machines() {
    let home = Home::new("Port 1\n");
    let machine = home.dir.path().join("machine");
    fs::create_dir_all(machine.join("more.d")).unwrap();
    fs::write(machine.join("ssh_config"), "Port 2\nInclude more.d/*\n").unwrap();
    fs::write(machine.join("more.d/a"), "User machine\n").unwrap();
    let find =
        || SshConfig::of_user().resolve_on(&home.local(), &"host".parse().unwrap(), None, None);
    let config = find().unwrap();
    assert_eq!(config.port, Some(1));
    assert_eq!(config.user.unwrap().as_str(), "machine");
    fs::write(machine.join("ssh_config"), "Include ~/more\n").unwrap();
    assert!(find().is_err());
    fs::remove_file(home.path("config")).unwrap();
    fs::remove_file(machine.join("ssh_config")).unwrap();
    assert_eq!(find().unwrap().port, None);
}

#[test]
fn a_file_that_was_named_has_to_exist() {
    let home = Home::new("");
    let config = SshConfig::file(home.path("not-there"));
    let error = config
        .resolve(&"host".parse().unwrap(), None, None)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn nothing_is_read_unless_it_is_asked_for() {
    let config = SshConfig::none();
    let found = config
        .resolve(&"HOST".parse().unwrap(), None, None)
        .unwrap();
    assert_eq!(
        (found.host.as_str(), found.port, found.user),
        ("host", None, None)
    );
}

#[test]
fn included_files_end_with_their_own_blocks() {
    let home = Home::new("Host host\n Include parts/*\n Port 22\nHost other\n Include never\n");
    home.write("parts/a", "Host other\n User wrong\n");
    home.write("parts/b", "User right\nMatch host nobody\n Port 1\n");
    home.write("never", "Match all\n Port 7\n Compression yes\n");
    let config = home.resolve("host").unwrap();
    assert_eq!(config.port, Some(22));
    assert_eq!(config.user.unwrap().as_str(), "right");
    assert_eq!(config.compression, None);
}

#[test]
fn files_that_include_themselves_end() {
    let home = Home::new("Include config\n");
    assert!(matches!(
        home.resolve("host"),
        Err(ConfigError::TooLong { .. })
    ));
    // Neither deep nor long, but more than anybody has time for.
    let home = Home::new("Include a* a* a* a*\n");
    home.write("a1", "Include b* b* b* b*\n");
    home.write("b1", "Include c* c* c* c*\n");
    home.write("c1", "Include d* d* d* d*\n");
    home.write("d1", "Port 22\n");
    assert!(matches!(
        home.resolve("host"),
        Err(ConfigError::TooLong { .. })
    ));
}

#[test]
fn lengths_are_bounded() {
    let long = format!("# {}\n", "x".repeat(LINE_LEN_MAX));
    assert!(matches!(
        Home::new(&long).resolve("host"),
        Err(ConfigError::TooLong { .. })
    ));
    let long = "# x\n".repeat(usize::try_from(FILE_LEN_MAX).unwrap() / 4 + 1);
    assert!(matches!(
        Home::new(&long).resolve("host"),
        Err(ConfigError::TooLong { .. })
    ));
}

#[cfg(unix)]
#[test]
fn only_the_owners_regular_files_are_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new("Port 22\n");
    let of_user =
        || SshConfig::of_user().resolve_on(&home.local(), &"host".parse().unwrap(), None, None);
    fs::set_permissions(home.path("config"), fs::Permissions::from_mode(0o620)).unwrap();
    let error = of_user().unwrap_err();
    assert!(matches!(error, ConfigError::OpenToOthers { .. }));
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    // One that was named is the user's affair, but what it includes is not.
    assert!(home.resolve("host").is_ok());
    fs::set_permissions(home.path("config"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(of_user().is_ok());
    home.write("more", "");
    fs::set_permissions(home.path("more"), fs::Permissions::from_mode(0o602)).unwrap();
    home.write("config", "Include more\n");
    assert!(matches!(
        home.resolve("host"),
        Err(ConfigError::OpenToOthers { .. })
    ));
    // A pipe is not waited for.
    let pipe = home.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let error = SshConfig::file(pipe).resolve(&"host".parse().unwrap(), None, None);
    assert!(matches!(error, Err(ConfigError::NotAFile { .. })));
}

#[test]
fn keywords_that_nobody_knows_are_warned_of() {
    let config = resolve(
        "IgnoreUnknown Mac*,other\nMacThing yes\nHostNam x\nControlMaster auto\n\
         CanonicalizeHostname no\nKnownHostsCommand /bin/x\n",
        "host",
    );
    let texts: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains(":3: ") && texts[0].contains("\"hostnam\""),
        "{texts:?}"
    );
    assert!(texts[1].contains("knownhostscommand"), "{texts:?}");
    let many = resolve(&"Nonsense 1\n".repeat(1000), "host");
    assert_eq!(many.warnings.len(), WARNINGS_MAX + 1);
}

#[test]
fn algorithms_that_ketch_does_not_have_are_left_out_and_told() {
    let config = resolve("Ciphers rot13,aes128-ctr\nMACs -umac-*\n", "host");
    let texts: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(
        texts[0].contains("Ciphers") && texts[0].contains("rot13"),
        "{texts:?}"
    );
    let base = ketch_transport::profile::Profile::Modern.for_client();
    let preferences = config.preferences(base.clone()).unwrap();
    assert_eq!(preferences.cipher.len(), 1);
    assert_eq!(preferences.mac, base.mac);
    let none = resolve("KexAlgorithms rot13\n", "host").preferences(base);
    assert_eq!(none.unwrap_err().kind(), Kind::Algorithm);
}

#[test]
fn commands_of_match_run_only_where_that_was_allowed() {
    let home = Home::new("Match exec \"test %h = host\"\n Port 1\nMatch exec false\n User no\n");
    let config = home.resolve("host").unwrap();
    assert_eq!(config.port, None);
    assert!(matches!(config.warnings[0], Warning::ExecNotAllowed { .. }));
    #[cfg(unix)]
    {
        let allowed = home.config().allow_match_exec();
        let found = allowed
            .resolve_on(&home.local(), &"host".parse().unwrap(), None, None)
            .unwrap();
        assert_eq!((found.port, found.user), (Some(1), None));
        // What would not count does not run.
        let marker = home.path("ran");
        home.write(
            "config",
            format!("Match host other exec \"touch {}\"\n", marker.display()),
        );
        let allowed = home.config().allow_match_exec();
        allowed
            .resolve_on(&home.local(), &"host".parse().unwrap(), None, None)
            .unwrap();
        assert!(!marker.exists());
    }
}

#[test]
fn a_proxy_command_is_words_and_never_a_shells() {
    let command = |text: &str| {
        Home::new(&format!("ProxyCommand {text}\n"))
            .resolve("host")
            .map(|config| config.proxy)
    };
    let wanted = "nc -x 'a b' %h %p".parse::<ProxyCommand>().unwrap();
    let wanted = wanted.named("host".parse().unwrap());
    assert_eq!(
        command("= nc -x 'a b' %h %p").unwrap(),
        Some(ProxyChoice::Command(wanted))
    );
    assert_eq!(command("none").unwrap(), Some(ProxyChoice::None));
    for needs_shell in ["nc %h %p | tee log", "nc $(id)", "nc \"`id`\"", "a;b"] {
        let error = command(needs_shell).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("shell"), "{source}");
    }
}

#[test]
fn names_that_could_be_commands_are_refused() {
    for line in [
        "HostName -oProxyCommand=x",
        "HostName a`id`",
        "HostName a;b",
        "HostName \"a b\"",
        "User -l",
        "User a$(id)",
        "User \"a\nb\"",
        "ProxyJump -oProxyCommand=x",
        "ProxyJump a`id`@b",
        "ProxyJump a:0",
        "ProxyJump [a",
    ] {
        let result = Home::new(line).resolve("host");
        assert!(result.is_err(), "{line}: {result:?}");
    }
}

#[test]
fn jump_hosts_are_lists_of_places() {
    let jump = |text: &str| {
        let config = resolve(&format!("ProxyJump {text}\n"), "host");
        match config.proxy {
            Some(ProxyChoice::Jump(jumps)) => jumps
                .iter()
                .map(|jump| {
                    let user = jump.user.as_ref().map(ToString::to_string);
                    (
                        user.unwrap_or_default(),
                        jump.host.to_string(),
                        jump.port.unwrap_or(0),
                    )
                })
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let place = |user: &str, host: &str, port| (user.to_owned(), host.to_owned(), port);
    assert_eq!(jump("a"), [place("", "a", 0)]);
    assert_eq!(
        jump("ann@a:22,ssh://b@[::1]:23 # over there"),
        [place("ann", "a", 22), place("b", "::1", 23)]
    );
    assert_eq!(jump("gw-%h"), [place("", "gw-host", 0)]);
    assert_eq!(
        resolve("ProxyJump none\n", "host").proxy,
        Some(ProxyChoice::None)
    );
    let first = resolve("ProxyCommand none\nProxyJump a\n", "host");
    assert_eq!(first.proxy, Some(ProxyChoice::None));
    let many = ["a"; JUMPS_MAX + 1].join(",");
    assert!(
        Home::new(&format!("ProxyJump {many}\n"))
            .resolve("host")
            .is_err()
    );
}

#[test]
fn paths_are_expanded() {
    let home = Home::new(
        "IdentityFile ~/keys/%r@%n.%L\nIdentityFile none\nCertificateFile ${KETCH_TEST}/%%\n\
         UserKnownHostsFile none\nGlobalKnownHostsFile ~/%h\nUser ann\nIdentityAgent $KETCH_TEST\n",
    );
    let mut local = home.local();
    local.set_variable("KETCH_TEST", "/v");
    local.host_name = "desk.example".to_owned();
    let config = home
        .config()
        .resolve_on(&local, &"Host".parse().unwrap(), None, None)
        .unwrap();
    let root = home.dir.path();
    assert_eq!(
        config.identity_files,
        Some(vec![root.join("keys/ann@Host.desk")])
    );
    assert_eq!(config.certificate_files, [Path::new("/v/%")]);
    assert_eq!(config.user_known_hosts, Some(vec![]));
    assert_eq!(config.global_known_hosts, Some(vec![root.join("%h")]));
    assert_eq!(config.identity_agent, Some(AgentChoice::At("/v".into())));
    assert_eq!(
        resolve("IdentityFile none\n", "h").identity_files,
        Some(vec![])
    );
    assert!(Home::new("IdentityFile %x\n").resolve("host").is_err());
    assert!(
        Home::new("IdentityFile ${KETCH_UNSET}\n")
            .resolve("host")
            .is_err()
    );
    let hash = Home::new("UserKnownHostsFile /c/%C\n");
    let mut local = hash.local();
    local.host_name = "l".to_owned();
    local.user = "u".to_owned();
    let found = hash
        .config()
        .resolve_on(&local, &"h".parse().unwrap(), None, None)
        .unwrap();
    let hash = found.user_known_hosts.unwrap();
    // As `printf lh22u | sha1sum` has it.
    assert_eq!(
        hash,
        [Path::new("/c/a758b431ce3b5255bb64fb021a4c2b4b65682e88")]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let error = Home::new("\nPort 22\nPort many\n")
        .resolve("host")
        .unwrap_err();
    assert!(error.to_string().ends_with("config:3: port"), "{error}");
    assert_eq!(error.kind(), Kind::Local);
    for (line, expected) in [
        ("Port", Fault::NoValue),
        ("Port 22 23", Fault::TooMuch),
        ("User \"a", Fault::OpenQuote),
        ("Match", Fault::NoValue),
        ("Match user", Fault::Condition("user".into())),
        ("Match nonsense 1", Fault::Condition("nonsense".into())),
        ("Match all user x", Fault::Conditions),
    ] {
        assert_eq!(fault(line), expected, "{line}");
    }
    let option = SshConfig::none().option("Host a");
    let error = option.resolve(&"host".parse().unwrap(), None, None);
    assert!(matches!(
        error,
        Err(ConfigError::Line {
            fault: Fault::OnlyInFiles,
            ..
        })
    ));
}

// What `ssh -G` says.

/// What `ssh` makes of a file: its values by keyword, or nothing if it refuses it.
fn ssh_says(home: &Home, host: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let output = Command::new("ssh")
        .arg("-G")
        .arg("-F")
        .arg(home.path("config"))
        .arg(host)
        .env("HOME", home.dir.path())
        .output()
        .expect("ssh is the oracle of this test: install openssh-client (scripts/test does it)");
    if !output.status.success() {
        return None;
    }
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        values
            .entry(keyword.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    Some(values)
}

/// The same of ours, in the words of `ssh -G`; what is not set is left out.
fn ketch_says(config: &HostConfig) -> BTreeMap<&'static str, Vec<String>> {
    let mut values = BTreeMap::new();
    let mut say = |keyword, value: Option<String>| {
        if let Some(value) = value {
            values.insert(keyword, vec![value]);
        }
    };
    let yes_no = |value: Option<bool>| value.map(|yes| if yes { "yes" } else { "no" }.to_owned());
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs().to_string());
    let files = |files: &Option<Vec<PathBuf>>| {
        files.as_ref().map(|files| match files.as_slice() {
            [] => "none".to_owned(),
            files => files
                .iter()
                .map(|f| f.to_str().unwrap())
                .collect::<Vec<_>>()
                .join(" "),
        })
    };
    say("hostname", Some(config.host.to_string()));
    say("port", config.port.map(|port| port.to_string()));
    say("user", config.user.as_ref().map(ToString::to_string));
    say(
        "addressfamily",
        config
            .address_family
            .map(|family| format!("{family:?}").to_lowercase()),
    );
    say("batchmode", yes_no(config.batch_mode));
    say(
        "bindaddress",
        config.bind_address.map(|address| address.to_string()),
    );
    say("compression", yes_no(config.compression));
    say("connecttimeout", seconds(config.connect_timeout));
    say(
        "connectionattempts",
        config.connection_attempts.map(|n| n.to_string()),
    );
    say("hashknownhosts", yes_no(config.hash_known_hosts));
    say("hostkeyalias", config.host_key_alias.clone());
    say("identitiesonly", yes_no(config.identities_only));
    say(
        "kbdinteractiveauthentication",
        yes_no(config.kbd_interactive_authentication),
    );
    say(
        "numberofpasswordprompts",
        config.password_prompts.map(|n| n.to_string()),
    );
    say(
        "passwordauthentication",
        yes_no(config.password_authentication),
    );
    say(
        "preferredauthentications",
        config
            .preferred_authentications
            .as_ref()
            .map(|list| list.join(",")),
    );
    say(
        "requiredrsasize",
        config.required_rsa_size.map(|n| n.to_string()),
    );
    say(
        "serveralivecountmax",
        config.server_alive_count_max.map(|n| n.to_string()),
    );
    say("serveraliveinterval", seconds(config.server_alive_interval));
    say(
        "stricthostkeychecking",
        config.strict_host_key_checking.map(|checking| {
            let text = match checking {
                HostKeyChecking::Yes => "true",
                HostKeyChecking::AcceptNew => "accept-new",
                HostKeyChecking::Ask => "ask",
                HostKeyChecking::Off => "false",
            };
            text.to_owned()
        }),
    );
    say("userknownhostsfile", files(&config.user_known_hosts));
    say("globalknownhostsfile", files(&config.global_known_hosts));
    values.insert("sendenv", config.send_env.clone());
    let set = config
        .set_env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    values.insert("setenv", set.collect());
    values
}

/// Compares what is said of `host`; gives how many values were compared that the file sets.
fn compare(home: &Home, host: &str, defaults: &BTreeMap<String, Vec<String>>) -> usize {
    let theirs = ssh_says(home, host);
    let ours = home.resolve(host);
    let text = fs::read_to_string(home.path("config")).unwrap();
    let (theirs, ours) = match (theirs, ours) {
        (Some(theirs), Ok(ours)) => (theirs, ours),
        (None, Err(_)) => return 0,
        // ketch refuses names that ssh would try.
        (Some(_), Err(ConfigError::Value { source, .. }))
            if matches!(*source, ValueError::Name(_)) =>
        {
            return 0;
        }
        (theirs, ours) => {
            let theirs = theirs.map(|_| ());
            panic!("{text}\nfor {host}: ssh {theirs:?}\nketch {ours:?}")
        }
    };
    let ours = ketch_says(&ours);
    let mut count = 0;
    for keyword in [
        "hostname",
        "port",
        "user",
        "addressfamily",
        "batchmode",
        "bindaddress",
        "compression",
        "connecttimeout",
        "connectionattempts",
        "hashknownhosts",
        "hostkeyalias",
        "identitiesonly",
        "kbdinteractiveauthentication",
        "numberofpasswordprompts",
        "passwordauthentication",
        "preferredauthentications",
        "requiredrsasize",
        "serveralivecountmax",
        "serveraliveinterval",
        "stricthostkeychecking",
        "userknownhostsfile",
        "globalknownhostsfile",
        "sendenv",
        "setenv",
    ] {
        let empty = Vec::new();
        let said = theirs.get(keyword).unwrap_or(&empty);
        let said: Vec<_> = said.iter().map(String::as_str).collect();
        match ours.get(keyword).filter(|values| !values.is_empty()) {
            Some(values) => {
                assert_eq!(*values, said, "{text}\nfor {host}: {keyword}");
                count += 1;
            }
            // Debian's ssh asks a server for signs of life in batch mode.
            None if keyword == "serveraliveinterval" && ours.contains_key("batchmode") => {}
            None => {
                let default = defaults.get(keyword).unwrap_or(&empty);
                assert_eq!(
                    said, *default,
                    "{text}\nfor {host}: {keyword} is not set by ketch"
                );
            }
        }
    }
    count
}

/// What chance found once.
#[test]
fn an_alias_is_in_small_letters_wherever_it_stands() {
    let text = "HostKeyAlias Gate\nUserKnownHostsFile /k/%k.%%\n";
    let home = Home::new(text);
    let same = compare(&home, "web1", &defaults("web1"));
    assert!(same >= 2, "{same}");
}

fn defaults(host: &str) -> BTreeMap<String, Vec<String>> {
    let mut defaults = ssh_says(&Home::new(""), host).unwrap();
    defaults.remove("hostname");
    defaults
}

const HOSTS: [&str; 6] = ["web1", "web2.example.com", "WEB1", "10.0.0.7", "db", "::1"];

/// Lines that open a block.
const BLOCKS: [&str; 34] = [
    "Host *",
    "Host web1",
    "host WEB1",
    "HOST web? db",
    "Host * !web1",
    "Host !web1 *",
    "Host \"web1\" 'db'",
    "Host web1 # db",
    "Host *.example.com",
    "Host=db",
    "Host = 10.0.0.?",
    "Host 10.0.0.0/8",
    "Host *:*",
    "Host !*",
    "Host ??",
    "Match all",
    "Match host web*",
    "Match host web1,db",
    "Match host \"*.example.com,!web2*\"",
    "match HOST WEB1",
    "Match originalhost web1",
    "Match originalhost *,!web1",
    "Match !host web1",
    "Match user ann",
    "Match user root,ann host web1",
    "Match !user ann",
    "Match localuser root",
    "Match localuser nobody",
    "Match host=db",
    "Match final host *.internal",
    "Match final all",
    "Match !final host db",
    "Match canonical all",
    "Match host db # originalhost web1",
];

/// Lines that set something.
const LINES: [&str; 76] = [
    "HostName real-%h",
    "HostName %h.INTERNAL",
    "HostName 192.0.2.1",
    "HostName=a%%b",
    "HostName %x",
    "User ann",
    "User \"root\"",
    "User = bob",
    "Port 2222",
    "Port=22",
    "Port 0",
    "Port 70000",
    "Port 22x",
    "Port",
    "Port 22 # comment",
    "Port 22 23",
    "AddressFamily inet",
    "AddressFamily INET6",
    "AddressFamily any",
    "BatchMode yes",
    "BatchMode No",
    "BatchMode maybe",
    "BindAddress 192.0.2.7",
    "Compression yes",
    "Compression true",
    "ConnectTimeout 1m30",
    "ConnectTimeout none",
    "ConnectTimeout 5",
    "ConnectTimeout -5",
    "ConnectionAttempts 3",
    "ConnectionAttempts x",
    "HashKnownHosts yes",
    "HostKeyAlias Gate",
    "HostKeyAlias other",
    "IdentitiesOnly yes",
    "IdentitiesOnly false",
    "KbdInteractiveAuthentication no",
    "ChallengeResponseAuthentication yes",
    "NumberOfPasswordPrompts 1",
    "PasswordAuthentication no",
    "PasswordAuthentication \"yes\"",
    "PreferredAuthentications publickey,password",
    "PreferredAuthentications \"keyboard-interactive\"",
    "RequiredRSASize 3072",
    "ServerAliveCountMax 7",
    "ServerAliveInterval 15",
    "ServerAliveInterval 2h",
    "StrictHostKeyChecking no",
    "StrictHostKeyChecking accept-new",
    "StrictHostKeyChecking ask",
    "StrictHostKeyChecking yes",
    "StrictHostKeyChecking off",
    "StrictHostKeyChecking perhaps",
    "UserKnownHostsFile /a /b",
    "UserKnownHostsFile /k/%h/%p/%r/%n",
    "UserKnownHostsFile /k/%k.%% \"/with a/blank\"",
    "UserKnownHostsFile none",
    "UserKnownHostsFile none /a",
    "UserKnownHostsFile /k/%C /%i.%u",
    "UserKnownHostsFile ${HOME}/k",
    "UserKnownHostsFile ${KETCH_NOT_SET}/k",
    "GlobalKnownHostsFile /g /h",
    "SendEnv LANG LC_*",
    "SendEnv -LC_*",
    "SendEnv A=b",
    "SetEnv A=b \"C=d e\"",
    "SetEnv A=c B=",
    "SetEnv A",
    "Include more",
    "Include parts/*.conf not-there",
    "LogLevel QUIET",
    "ControlMaster auto",
    "# Port 77",
    "   ",
    "User 'a",
    "User a\\ b",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn configurations_mean_what_ssh_says(
        lines in proptest::collection::vec((select(&BLOCKS[..]), proptest::collection::vec(select(&LINES[..]), 0..5)), 1..7),
        head in proptest::collection::vec(select(&LINES[..]), 0..3),
        included in proptest::collection::vec((select(&BLOCKS[..]), select(&LINES[..])), 1..4),
        host in any::<Index>(),
    ) {
        let harmless = |line: &&str| !line.starts_with("Include");
        let mut text: String = head.iter().map(|line| format!("{line}\n")).collect();
        for (block, lines) in &lines {
            text.push_str(&format!("{block}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\r\n")));
        }
        let home = Home::new(&text);
        let included: Vec<_> = included.iter().flat_map(|(block, line)| [*line, *block]).filter(harmless).collect();
        home.write("more", included.join("\n"));
        home.write("parts/a.conf", included.iter().rev().copied().collect::<Vec<_>>().join("\n"));
        home.write("parts/b.other", "Port 1\n");
        let host = HOSTS[host.index(HOSTS.len())];
        compare(&home, host, &defaults(host));
    }
}

/// Each line by itself: so that a line of the corpus which is always beside a bad one is seen, too.
#[test]
fn every_single_line_means_what_ssh_says() {
    let mut compared = 0;
    let mut refused = 0;
    let hosts = ["web1", "web2.example.com"];
    let defaults = hosts.map(|host| (host, defaults(host)));
    for (host, defaults) in &defaults {
        for line in LINES {
            let home = Home::new(&format!("{line}\n"));
            home.write("more", "Port 7\n");
            match compare(&home, host, defaults) {
                0 => refused += 1,
                count => compared += count,
            }
        }
        for block in BLOCKS {
            let home = Home::new(&format!("{block}\nPort 7\nHost *\nHostName x.internal\n"));
            compared += compare(&home, host, defaults);
        }
    }
    assert!(compared > 150 && refused > 20, "{compared} {refused}");
}

#[test]
fn lists_of_algorithms_mean_what_ssh_says() {
    let query = |what: &str| {
        let output = Command::new("ssh").args(["-Q", what]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&'static str> = text.lines().map(|line| &*line.to_owned().leak()).collect();
        names
    };
    for (keyword, said, all, is_of_keys) in [
        ("Ciphers", "ciphers", query("cipher"), false),
        ("MACs", "macs", query("mac"), false),
        ("KexAlgorithms", "kexalgorithms", query("kex"), false),
        (
            "HostKeyAlgorithms",
            "hostkeyalgorithms",
            query("HostKeyAlgorithms"),
            true,
        ),
        (
            "PubkeyAcceptedAlgorithms",
            "pubkeyacceptedalgorithms",
            query("PubkeyAcceptedAlgorithms"),
            true,
        ),
        (
            "CASignatureAlgorithms",
            "casignaturealgorithms",
            query("PubkeyAcceptedAlgorithms"),
            true,
        ),
    ] {
        let of = |config: &str| {
            ssh_says(&Home::new(config), "h").map(|mut says| says.remove(said).unwrap().remove(0))
        };
        let defaults = of("").unwrap();
        let defaults: Vec<&'static str> = defaults
            .split(',')
            .map(|name| &*name.to_owned().leak())
            .collect();
        // Authorities sign with keys, never with certificates.
        let all: Vec<_> = match keyword {
            "CASignatureAlgorithms" => all.into_iter().filter(|n| !n.contains("-cert-")).collect(),
            _ => all,
        };
        let (first, last, weak) = (all[0], defaults[defaults.len() - 1], all[all.len() - 1]);
        for list in [
            format!("{last},{first}"),
            format!("+{weak}"),
            format!("+{last},{first}"),
            format!("^{last}"),
            format!("^{weak},{last}"),
            format!("-{first}"),
            format!("-{}*", &last[..4]),
            "-*,!x".to_owned(),
            format!("-*,!{last}"),
            format!("{last},{last}"),
        ]
        .into_iter()
        .chain(is_of_keys.then(|| "ssh-ed25519*,rsa*".to_owned()))
        .chain(is_of_keys.then(|| "+*rsa*".to_owned()))
        {
            let spec = match is_of_keys {
                true => AlgorithmSpec::of_keys(&list),
                false => AlgorithmSpec::new(&list),
            };
            let ours = spec.choose(&defaults, &all, |name| name).algorithms;
            let Some(theirs) = of(&format!("{keyword} {list}\n")) else {
                continue; // it refuses lists that take everything away
            };
            assert_eq!(ours.join(","), theirs, "{keyword} {list}");
        }
    }
}

proptest! {
    #[test]
    fn every_file_has_a_meaning_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let home = Home::new("");
        home.write("config", &bytes);
        let _ = home.resolve("host");
    }

    #[test]
    fn every_mix_of_keywords_and_noise_has_a_meaning_or_an_error(
        lines in proptest::collection::vec((select(&LINES[..]), "\\PC{0,20}"), 0..12),
    ) {
        let text: String = lines.iter().map(|(line, noise)| {
            let keyword = line.split([' ', '=']).next().unwrap_or_default();
            format!("{keyword} {noise}\n")
        }).collect();
        let home = Home::new("");
        home.write("config", &text);
        let _ = home.resolve("host");
    }
}
