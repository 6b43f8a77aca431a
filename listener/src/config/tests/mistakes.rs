//! One mistake each, of those that people make, and what is said of it.

use super::*;

/// What is told of a file with one source, flow and sink, of which some lines are wrong.
fn told(source: &str, flow: &str, sink: &str) -> String {
    faults(&with(source, flow, sink))
}

const LOCAL: &str = "local = \"in\"";
const DISK: &str = "kind = \"directory\"\npath = \"out\"";
const LOGIN: &str = "url = \"sftp://ann@host/in\"\npassword = \"x\"";

#[test]
fn each_mistake_is_told_with_its_line_and_what_to_do() {
    let of_source = |text: &str| told(text, "", DISK);
    let of_login = |text: &str| told(&format!("{LOGIN}\n{text}"), "", DISK);
    let of_flow = |text: &str| told(LOCAL, text, DISK);
    let of_sink = |text: &str| told(LOCAL, "", text);
    let at_the_end = |text: &str| faults(&format!("{}{text}", local("")));
    let host = "the host has to be an address or a name of letters, digits";
    let found_again =
        "what has this name would be found again as new; begin it with a directory of its own";
    let fed = "what is put there would be found by this flow again, without end; put it outside";
    for (told, expected) in [
        (faults(""), "line 1: state: this key is missing"),
        (
            faults("state = \"s\"\nstate = \"t\"\n"),
            "line 2: duplicate key",
        ),
        (faults("state = \"s\n"), "line 1: invalid basic string"),
        (
            faults("state = \"s\"\nsource = []\nflow = []\n"),
            "line 2: source: one entry is the least",
        ),
        (
            of_source("url = \"sftp://ann:secret@host/in\"\nagent = \"env\""),
            "line 4: source[0].url: a password does not belong into a URL",
        ),
        (
            of_source("url = \"sftp://ann@host:99999/in\"\nagent = \"env\""),
            "line 4: source[0].url: the port has to be a number from 1 to 65535",
        ),
        (
            of_source("url = \"sftp://ann@/in\"\nagent = \"env\""),
            &*format!("line 4: source[0].url: {host}"),
        ),
        (
            of_source("url = \"sftp://ann@host/in\"\nidentity = [\"no-such\"]"),
            "line 5: source[0].identity[0]: the private key DIR/no-such could not be read: No such file",
        ),
        (
            of_source("url = \"sftp://ann@host/in\"\nidentity = \"id\""),
            "line 5: source[0].identity: this is a text, and a list is wanted",
        ),
        (
            of_source("url = \"sftp://ann@host/in\"\npassword = { env = \"NO_SUCH_VARIABLE\" }"),
            "line 5: source[0].password: there is no variable NO_SUCH_VARIABLE in the environment",
        ),
        (
            of_source("url = \"sftp://ann@host/in\"\npassword = { file = \"no-such\" }"),
            "line 5: source[0].password: DIR/no-such: it cannot be read: No such file",
        ),
        (
            of_source("url = \"sftp://ann@host/in\"\nprivate_key = \"no key\""),
            "line 5: source[0].private_key: ",
        ),
        (
            of_source("local = \"in\"\nidentity = [\"id\"]"),
            "line 5: source[0].identity: this is for a source with `url`",
        ),
        (
            of_login("accept_new_host = true"),
            "line 6: source[0].accept_new_host: there is no file to write the key into; `known_hosts` names one",
        ),
        (
            of_login("host_key = [\"no key\"]"),
            "line 6: source[0].host_key[0]: the line does not begin with a supported key type and a key",
        ),
        (
            of_login("jump = [\"a b\"]"),
            &*format!("line 6: source[0].jump[0]: {host}"),
        ),
        (
            of_login("proxy = \"ftp://a\""),
            "line 6: source[0].proxy: a proxy is one of socks5, socks4, socks4a and http",
        ),
        (
            of_login("proxy_password = \"x\""),
            "line 6: source[0].proxy_password: there is no `proxy`",
        ),
        (
            of_login("algorithms = \"old\""),
            "line 6: source[0].algorithms: \"old\" is none of modern, compat, legacy, pq-only",
        ),
        (
            of_login("timeouts = { connect = \"0s\" }"),
            "line 6: source[0].timeouts.connect: it must be more than zero",
        ),
        (
            of_flow("interval = \"0s\""),
            "line 8: flow[0].interval: it must be more than zero",
        ),
        (
            of_flow("interval = \"-5s\""),
            "line 8: flow[0].interval: this is no time",
        ),
        (
            of_flow("interval = 5"),
            "line 8: flow[0].interval: this is a whole number, and a text in quotes is wanted",
        ),
        (
            of_flow("recursive = \"yes\""),
            "line 8: flow[0].recursive: this is a text, and true or false is wanted",
        ),
        (
            of_flow("schedule = \"0 6 * *\""),
            "line 8: flow[0].schedule: an expression has five fields (minute, hour, day, month, day of the week), and this has 4",
        ),
        (
            of_flow("schedule = \"0 0 6 * * *\""),
            "line 8: flow[0].schedule: an expression has five fields, and this has six; leave out that of the seconds",
        ),
        (
            of_flow("schedule = \"0 25 * * *\""),
            "line 8: flow[0].schedule: the hour cannot be \"25\": it goes from 0 to 23",
        ),
        (
            of_flow("interval = \"5s\"\nschedule = \"@daily\""),
            "line 8: flow[0].interval: the schedule says when it is looked; leave one of the two out",
        ),
        (
            of_flow("schedule = \"@daily\"\ntime_zone = \"Europe/Berlni\""),
            "line 9: flow[0].time_zone: there is no time zone \"Europe/Berlni\"; do you mean Europe/Berlin?",
        ),
        (
            of_flow("time_zone = \"Europe/Berlin\""),
            "line 8: flow[0].time_zone: there is no schedule; schedule = ",
        ),
        (
            of_flow("catch_up = false"),
            "line 8: flow[0].catch_up: there is no schedule; schedule = ",
        ),
        (
            of_flow("recursive = true\nmin_depth = 3\ndepth = 2"),
            "line 9: flow[0].min_depth: it is more than `depth`",
        ),
        (
            of_flow("min_depth = 2"),
            "line 8: flow[0].min_depth: directories are not looked into; recursive = true",
        ),
        (
            of_flow("recursive = true\ndepth = 65"),
            "line 9: flow[0].depth: 64 is the most",
        ),
        (
            of_flow("attempts = 0"),
            "line 8: flow[0].attempts: 1 is the least",
        ),
        (
            of_flow("include = \"*.csv\""),
            "line 8: flow[0].include: this is a text, and a list is wanted",
        ),
        (
            of_flow("include = [\"[z-a]\"]"),
            "line 8: flow[0].include[0]: this is no pattern",
        ),
        (
            of_flow("min_size = \"1 MX\""),
            "line 8: flow[0].min_size: this is no number of bytes, such as \"500 MB\"",
        ),
        (
            of_flow("rate = \"0\""),
            "line 8: flow[0].rate: nothing would ever come; `ketch listen pause` stops a flow",
        ),
        (
            of_flow("min_age = \"1h\"\nmax_age = \"1min\""),
            "line 8: flow[0].min_age: it is more than `max_age`",
        ),
        (
            of_flow("retry = { first = \"1h\", max = \"1min\" }"),
            "line 8: flow[0].retry: `first` is longer than `max`",
        ),
        (
            of_flow("path = \"/abs\""),
            "line 8: flow[0].path: it is no path below the source's directory",
        ),
        (
            of_flow("settle = { trigger_file = \"a/b\" }"),
            "line 8: flow[0].settle.trigger_file: this is no name of a file",
        ),
        (
            of_flow("settle = { done_file = \"{name}\" }"),
            "line 8: flow[0].settle.done_file: something must stand before or behind {name}",
        ),
        (
            of_flow("after = { action = \"move\", to = \"../x/{name}\" }"),
            "line 8: flow[0].after.to: what it makes is no name below the destination",
        ),
        (
            of_flow("after = { action = \"rename\", to = \"{path}\" }"),
            &*format!("line 8: flow[0].after.to: {found_again}"),
        ),
        (
            of_flow("after = { failed = \"{name}\" }"),
            &*format!("line 8: flow[0].after.failed: {found_again}"),
        ),
        (
            of_flow("pre_move = \"{name}\""),
            &*format!("line 8: flow[0].pre_move: {found_again}"),
        ),
        (
            of_sink("kind = \"directory\""),
            "line 9: flow[0].sink[0].path: this key is missing",
        ),
        (
            of_sink("kind = \"directory\"\npath = \"in\""),
            &*format!("line 12: flow[0].sink[0].path: {fed}"),
        ),
        (
            of_sink("kind = \"directory\"\npath = \"out\"\ntemplate = \"../{name}\""),
            "line 13: flow[0].sink[0].template: what it makes is no name below the destination",
        ),
        (
            of_sink("kind = \"sftp\"\nsource = \"bnak\"\npath = \"/x\""),
            "line 12: flow[0].sink[0].source: there is no source \"bnak\"; do you mean bank?",
        ),
        (
            of_sink("kind = \"sftp\"\nsource = \"bank\"\npath = \"/x\""),
            "line 12: flow[0].sink[0].source: this source is no server; kind = \"directory\"",
        ),
        (
            of_sink("kind = \"object\"\nurl = \"ftp://bucket\""),
            "line 12: flow[0].sink[0].url: \"ftp://bucket\" is none of s3://, gs://, az://",
        ),
        (
            of_sink("kind = \"command\"\ncommand = [\"x\"]\nfile_from = \"none\""),
            "line 13: flow[0].sink[0].file_from: there is no sink \"none\" before this one",
        ),
        (
            of_sink("kind = \"webhook\"\nurl = \"http://host/\""),
            "line 9: flow[0].sink[0]: \"http://host/\" is no URL for a webhook: plain http goes to this machine only; use https",
        ),
        (
            of_sink("kind = \"webhook\"\nurl = \"https://host/\"\nsecret = \"short\""),
            "line 13: flow[0].sink[0].secret: a secret has 24 to 1024 bytes, and this one has 5",
        ),
        (
            of_sink("kind = \"nats\"\nservers = [\"http://a\"]\nstream = \"s\""),
            "line 9: flow[0].sink[0]: a NATS server is given as nats://host:4222 or tls://host:4222",
        ),
        (
            of_sink("kind = \"postgres\"\nconnect = \"nonsense\"\ntable = \"t\""),
            "line 9: flow[0].sink[0]: this is no way to connect to PostgreSQL",
        ),
        (
            of_sink(
                "kind = \"postgres\"\nconnect = \"host=db user=a dbname=b sslmode=disable\"\ntable = \"t\"",
            ),
            "line 9: flow[0].sink[0]: PostgreSQL on another machine is spoken to without encryption only if",
        ),
        (
            at_the_end("[api]\ntoken = \"short\"\n"),
            "line 14: api.token: a token has 16 to 512 characters, and this one has 5",
        ),
        (
            at_the_end("[api]\ntoken = \"with blanks in between\"\n"),
            "line 14: api.token: a token is printable ASCII without blanks",
        ),
        (
            at_the_end("[api]\nlisten = \"here\"\n"),
            "line 14: api.listen: ",
        ),
    ] {
        let is_there = told.lines().any(|line| line.starts_with(expected));
        assert!(is_there, "{expected}\nis not in\n{told}");
    }
}
