//! What nobody gets more of: bodies, connections, waits, and memory for who reads slowly.

use std::time::Instant;

use super::*;

/// The bound is looked at within this time of the first connection: a connection that says nothing
/// gives its place back after ten seconds.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_body_may_be_so_long_and_no_longer() {
    let served = served().await;
    let line = "POST /v1/flows/orders/replay";
    let body = |len: usize| format!("{{}}{}", " ".repeat(len - 2));
    let (status, _, _) = served.text(WRITE, line, &body(routes::BODY_MAX)).await;
    assert_eq!(status, 200);
    let (status, _, _) = served.text(WRITE, line, &body(routes::BODY_MAX + 1)).await;
    assert_eq!(status, 413);
    // Its length is not said before it comes.
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let head = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {WRITE}\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        routes::BODY_MAX + 1,
        body(routes::BODY_MAX + 1)
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 413");
    // Nothing is read for whoever has no token.
    let (status, _, _) = served.text("", line, "").await;
    assert_eq!(status, 401);
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "whether the machine was too slow to judge"
)]
async fn so_many_may_be_connected_and_the_next_is_closed_at_once() {
    for _ in 0..20 {
        let served = served().await;
        let began = Instant::now();
        let mut open = Vec::new();
        for _ in 0..serve::CONNECTIONS_MAX {
            open.push(TcpStream::connect(served.address).await.expect("connects"));
        }
        let mut next = TcpStream::connect(served.address).await.expect("connects");
        let mut byte = [0; 1];
        // Closed, or reset: nothing was said to it.
        let got = next.read(&mut byte).await.unwrap_or(0);
        assert_eq!(got, 0);
        if began.elapsed() > SOON {
            continue; // It may have been closed for saying nothing.
        }
        // Who goes leaves a place, once that is seen.
        open.clear();
        loop {
            let mut stream = served.send("", "GET /healthz", "").await;
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && answer.contains("200 OK") {
                return;
            }
            assert!(!answer.starts_with("HTTP"), "{answer}");
        }
    }
    panic!("the machine is too slow to tell");
}

#[tokio::test]
async fn so_many_requests_may_wait_for_files() {
    let served = served().await;
    served.daemon.flow.holds.store(true, Relaxed);
    let line = "POST /v1/flows/orders/fetch";
    let mut waiting = Vec::new();
    for _ in 0..routes::WAITING_MAX {
        waiting.push(served.send(WRITE, line, "").await);
    }
    while served.daemon.flow.asked.lock().expect("whole").len() < routes::WAITING_MAX {
        tokio::task::yield_now().await;
    }
    // What waits for nothing is answered all the same.
    assert_eq!(served.get("/v1/flows").await.0, 200);
    let (status, refused) = served.post("/v1/flows/orders/fetch", json!({})).await;
    assert_eq!(status, 503, "{refused}");
    let (status, refused) = served.post("/v1/flows/orders/apply", json!({})).await;
    assert_eq!(status, 503, "{refused}");
    served.daemon.flow.held.add_permits(1);
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (status, _) = served.post("/v1/flows/orders/fetch", json!({})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn who_reads_events_slowly_is_told_how_many_were_missed_and_has_all_others() {
    let served = served().await;
    let orders = FlowName::new("orders").expect("a name");
    let events = &served.daemon.events;
    let raised = |n: u64| FlowEventKind::Raised {
        what: n.to_string(),
        reason: "x".repeat(2000),
    };
    const TOLD: u64 = 8 * RECENT_MAX as u64;
    events.tell(0, &orders, raised(0));
    let mut stream = served.send(READ, "GET /v1/events", "").await;
    let mut rest = String::new();
    assert_eq!(event(&mut stream, &mut rest).await.1, "raised");
    // Some 16 MB that nobody reads: more than two sockets hold.
    for n in 1..=TOLD {
        events.tell(n, &orders, raised(n));
        tokio::task::yield_now().await;
    }
    let (mut got, mut missed, mut last) = (0_u64, 0_u64, String::new());
    while last != TOLD.to_string() {
        let (_, name, data) = event(&mut stream, &mut rest).await;
        if name == "missed" {
            missed += data.parse::<u64>().expect("a number");
            continue;
        }
        let data: Value = serde_json::from_str(&data).expect("JSON");
        let number: u64 = data["what"]
            .as_str()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        got += 1;
        assert_eq!(number, got + missed, "in order, with the gap told");
        last = number.to_string();
    }
    println!("{got} came, {missed} were missed");
    assert_eq!(got + missed, TOLD);
}
