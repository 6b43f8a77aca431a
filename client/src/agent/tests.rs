//! Agents that are not as they should be, and one that is.

use ketch_keys::PrivateKey;
use ketch_wire::Writer;
use tokio::io::{DuplexStream, duplex};
use zeroize::Zeroizing;

use super::*;

const ED25519: SignatureAlgorithm = SignatureAlgorithm::Ed25519;

fn key() -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32]))
}

fn frame(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = Vec::new();
    Writer::new(&mut frame).scope(fill);
    frame
}

/// An agent that gives this reply to whatever it is asked.
fn agent_that_says(reply: Vec<u8>) -> Agent {
    let (ours, mut theirs) = duplex(1 << 20);
    #[expect(
        clippy::disallowed_methods,
        reason = "the agent of a test is a task of its own"
    )]
    tokio::spawn(async move {
        let mut asked = [0; 1 << 16];
        while let Ok(1..) = theirs.read(&mut asked).await {
            if theirs.write_all(&reply).await.is_err() {
                return;
            }
        }
    });
    Agent::over(ours)
}

fn signature(blob: &[u8]) -> Vec<u8> {
    frame(|w| {
        w.u8(14);
        w.string(blob);
    })
}

#[tokio::test]
async fn keys_of_unknown_types_are_passed_over() {
    let reply = frame(|w| {
        w.u8(12);
        w.u32(3);
        for (blob, comment) in [
            (&b"no key"[..], &b"first"[..]),
            (key().public_key().as_blob(), b"\x1b[2Jann"),
            (b"\0\0\0\x07ssh-dss\0\0\0\x01\x01", b"old"),
        ] {
            w.string(blob);
            w.string(comment);
        }
    });
    let keys = agent_that_says(reply).keys().await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(&keys[0].key, key().public_key());
    assert_eq!(keys[0].comment, "\\u{1b}[2Jann");
}

#[tokio::test]
async fn a_signature_is_used_if_it_fits() {
    let public = key().public_key().clone();
    let good = key().sign(ED25519, b"data").unwrap();
    let signed = agent_that_says(signature(&good))
        .sign(&public, ED25519, b"data")
        .await;
    assert_eq!(signed.unwrap(), good);
    for bad in [
        key().sign(ED25519, b"other data").unwrap(),
        good[..good.len() - 1].to_vec(),
        b"short".to_vec(),
        Vec::new(),
    ] {
        let signed = agent_that_says(signature(&bad))
            .sign(&public, ED25519, b"data")
            .await;
        assert!(matches!(signed, Err(AgentError::BadSignature)), "{bad:?}");
    }
}

#[tokio::test]
async fn a_reply_that_is_none_is_an_error() {
    let public = key().public_key().clone();
    let mut huge = vec![0xff; 4];
    huge.push(14);
    let list = frame(|w| {
        w.u8(12);
        w.u32(0);
    });
    let success = frame(|w| w.u8(6));
    let many = frame(|w| {
        w.u8(12);
        w.u32(u32::MAX);
    });
    for reply in [huge, list, success.clone(), frame(|_| {})] {
        let signed = agent_that_says(reply.clone())
            .sign(&public, ED25519, b"data")
            .await;
        assert!(
            matches!(signed, Err(AgentError::BadReply(_))),
            "{reply:?} {signed:?}"
        );
    }
    for reply in [success, many] {
        let listed = agent_that_says(reply).keys().await;
        assert!(matches!(listed, Err(AgentError::BadReply(_))));
    }
    let refused = agent_that_says(frame(|w| w.u8(5))).keys().await;
    assert!(matches!(refused, Err(AgentError::Refused)));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_given_up() {
    let (ours, _theirs): (DuplexStream, DuplexStream) = duplex(100);
    let mut agent = Agent::over(ours);
    assert!(matches!(agent.keys().await, Err(AgentError::TimedOut)));
}

#[tokio::test]
async fn an_agent_that_goes_is_told_from_one_that_refuses() {
    let (ours, theirs) = duplex(100);
    drop(theirs);
    let error = Agent::over(ours).keys().await.unwrap_err();
    assert!(matches!(error, AgentError::Lost(_)), "{error:?}");
    let nowhere = AgentPath::Socket("/nonexistent/agent".into());
    let error = Agent::connect(&nowhere).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}
