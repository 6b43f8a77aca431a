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
    let all = [
        faults(""),
        faults("state = \"s\"\nstate = \"t\"\n"),
        faults("state = \"s\n"),
        faults("state = \"s\"\nsource = []\nflow = []\n"),
        of_source("url = \"sftp://ann:secret@host/in\"\nagent = \"env\""),
        of_source("url = \"sftp://ann@host:99999/in\"\nagent = \"env\""),
        of_source("url = \"ann@host:/in\"\nagent = \"env\""),
        of_source("url = \"sftp://ann@/in\"\nagent = \"env\""),
        of_source("url = \"sftp://ann@host/in\"\nidentity = [\"no-such\"]"),
        of_source("url = \"sftp://ann@host/in\"\nidentity = \"id\""),
        of_source("url = \"sftp://ann@host/in\"\npassword = { env = \"NO_SUCH_VARIABLE\" }"),
        of_source("url = \"sftp://ann@host/in\"\npassword = { file = \"no-such\" }"),
        of_source("url = \"sftp://ann@host/in\"\nprivate_key = \"no key\""),
        of_source("local = \"in\"\nidentity = [\"id\"]"),
        of_login("accept_new_host = true"),
        of_login("danger_accept_any_host = true\nhost_key = [\"no key\"]"),
        of_login("jump = [\"a b\"]"),
        of_login("proxy = \"ftp://a\""),
        of_login("proxy_password = \"x\""),
        of_login("algorithms = \"old\""),
        of_login("timeouts = { connect = \"0s\" }"),
        of_flow("interval = \"0s\""),
        of_flow("interval = \"-5s\""),
        of_flow("interval = 5"),
        of_flow("interval = \"1000h\""),
        of_flow("recursive = \"yes\""),
        of_flow("recursive = true\ndepth = 65"),
        of_flow("concurrency = 0"),
        of_flow("attempts = 0"),
        of_flow("include = \"*.csv\""),
        of_flow("include = [\"[z-a]\"]"),
        of_flow("min_size = \"1 MX\""),
        of_flow("rate = \"0\""),
        of_flow("in_flight = \"0\""),
        of_flow("min_age = \"1h\"\nmax_age = \"1min\""),
        of_flow("retry = { first = \"1h\", max = \"1min\" }"),
        of_flow("path = \"/abs\""),
        of_flow("settle = { trigger_file = \"a/b\" }"),
        of_flow("settle = { done_file = \"{name}\" }"),
        of_flow("settle = { period = \"1s\", rule = \"on-close\", polls = 0 }"),
        of_flow("after = { action = \"move\", to = \"../x/{name}\" }"),
        of_flow("after = { action = \"rename\", to = \"{path}\" }"),
        of_flow("after = { failed = \"{name}\" }"),
        of_flow("pre_move = \"{name}\""),
        of_flow("spool = 7"),
        of_sink("kind = \"directory\""),
        of_sink("kind = \"directory\"\npath = \"in\""),
        of_sink("kind = \"directory\"\npath = \"out\"\ntemplate = \"../{name}\""),
        of_sink("kind = \"sftp\"\nsource = \"bnak\"\npath = \"/x\""),
        of_sink("kind = \"sftp\"\nsource = \"bank\"\npath = \"/x\""),
        of_sink("kind = \"object\"\nurl = \"ftp://bucket\""),
        of_sink("kind = \"command\"\ncommand = []"),
        of_sink("kind = \"command\"\ncommand = [\"x\"]\nfile_from = \"none\""),
        of_sink("kind = \"webhook\"\nurl = \"http://host/\""),
        of_sink("kind = \"webhook\"\nurl = \"https://host/\"\nsecret = \"short\""),
        of_sink("kind = \"nats\"\nservers = []\nstream = \"s\""),
        of_sink("kind = \"nats\"\nservers = [\"http://a\"]\nstream = \"s\""),
        of_sink("kind = \"postgres\"\nconnect = \"nonsense\"\ntable = \"t\""),
        of_sink("kind = \"postgres\"\nconnect = \"host=db user=a dbname=b\"\ntable = \"a b\""),
        faults(&format!("[api]\ntoken = \"short\"\n{}", local("")).replacen("state", "x", 0)),
        faults(&format!(
            "store = {{ postgres = \"nonsense\" }}\n{}",
            local("")
        )),
    ];
    for each in &all {
        println!("{}---", each);
    }
    panic!("print");
}
