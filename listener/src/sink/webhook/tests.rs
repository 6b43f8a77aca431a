use super::*;

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

#[test]
fn answers_mean_what_the_table_says() {
    let now = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    let says = |code, after| verdict(status(code), after, now);
    let seconds = |n| Verdict::After(Duration::from_secs(n));
    assert_eq!(says(200, None), Verdict::Done);
    assert_eq!(says(204, Some("5")), Verdict::Done);
    assert_eq!(says(503, Some("7")), seconds(7));
    assert_eq!(says(429, Some(" 7 ")), seconds(7));
    assert_eq!(
        says(429, Some("Sun, 06 Nov 1994 08:50:37 GMT")),
        seconds(60)
    );
    assert_eq!(says(429, Some("Sun, 06 Nov 1994 08:40:37 GMT")), seconds(0));
    assert_eq!(
        says(429, Some("99999999999")),
        Verdict::After(RETRY_AFTER_MAX)
    );
    for code in [408, 425, 429, 502, 503, 504] {
        let Verdict::Refused(kind) = says(code, Some("soon")) else {
            panic!("{code}");
        };
        assert!(kind.is_transient(), "{code}");
    }
    for code in [
        300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422, 500, 501, 599,
    ] {
        let Verdict::Refused(kind) = says(code, Some("5")) else {
            panic!("{code}");
        };
        assert!(!kind.is_transient(), "{code}");
    }
}

#[test]
fn plain_http_stays_on_this_machine() {
    for good in [
        "https://erp.example/hooks",
        "http://127.0.0.1:8080/x",
        "http://[::1]:80/",
        "http://localhost/",
    ] {
        assert!(allowed_url(good, false).is_ok(), "{good}");
    }
    for bad in [
        "http://erp.example/",
        "http://127.0.0.1.example/",
        "http://localhost.example/",
        "ftp://erp.example/",
        "file:///etc/passwd",
        "erp.example",
        "",
    ] {
        assert!(allowed_url(bad, false).is_err(), "{bad}");
    }
    assert!(allowed_url("http://erp.example/", true).is_ok());
    let error = allowed_url("ftp://ann:pass@erp.example/?token=t", false).err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        !error.contains("pass") && !error.contains("token"),
        "{error}"
    );
}

#[test]
fn a_refusal_is_one_line() {
    assert_eq!(printable(b" no\nway\x1b[31m "), "\"no\\nway\\u{1b}[31m\"");
    assert_eq!(printable(b"\n"), "");
}

#[test]
fn an_attribute_in_a_header_is_printable_ascii() {
    assert_eq!(in_header("in/a.csv"), "in/a.csv");
    assert_eq!(
        in_header("100% \"ä€\"\n"),
        "100%25%20%22%C3%A4%E2%82%AC%22%0A"
    );
}

#[test]
fn what_receivers_know_us_by_is_not_shown() {
    let mut settings = WebhookSettings::new(
        "erp",
        "https://erp.example/hooks/path-secret?t=query-secret",
    );
    settings.headers = vec![("Authorization".to_owned(), "header-secret".to_owned())];
    let shown = format!("{settings:?}");
    let webhook = Webhook::new(settings, "ketch".to_owned()).expect("a webhook");
    let shown = format!("{shown}{webhook:?}");
    for part in ["path-secret", "query-secret", "header-secret"] {
        assert!(!shown.contains(part), "{shown}");
    }
    assert!(
        shown.contains("erp.example") && shown.contains("Authorization"),
        "{shown}"
    );
}
