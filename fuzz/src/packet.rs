//! The bottom of SSH: identification lines and the binary packet layer (RFC 4253 §4.2, §6).

use ketch_transport::algorithm::{CipherName, Compression};
use ketch_transport::crypto::Suite;
use ketch_transport::packet::{
    IdentificationReader, Input, PACKET_LEN_MAX, PacketError, Progress, Receiver, Sender,
};

/// Identification lines, whole and in pieces: the same line, or an error both times.
///
/// The first byte says whose line it is, the second how long the pieces are.
pub fn ident_lines(data: &[u8]) {
    let Some((&[role, piece_len], stream)) = data.split_first_chunk() else {
        return;
    };
    let reader = || match role % 2 {
        0 => IdentificationReader::of_server(),
        _ => IdentificationReader::of_client(),
    };
    let whole = reader().read(&mut Input::new(&mut stream.to_vec()));
    let mut in_pieces = reader();
    let mut outcome = Ok(Progress::Incomplete);
    for piece in stream.chunks(usize::from(piece_len) + 1) {
        outcome = in_pieces.read(&mut Input::new(&mut piece.to_vec()));
        if outcome != Ok(Progress::Incomplete) {
            break;
        }
    }
    // Of a line that is too long and not SSH either, who sees only its start says the latter.
    assert_eq!(outcome.as_ref().ok(), whole.as_ref().ok());
    if let Ok(Progress::Complete(line)) = whole {
        assert!(line.as_str().starts_with("SSH-"));
        assert!(
            line.as_str()
                .chars()
                .all(|c| c == ' ' || c.is_ascii_graphic())
        );
    }
}

/// Arbitrary bytes as packets under every cipher, and good packets of which one byte was changed.
pub fn packet_layer(data: &[u8]) {
    // Without keys every well-formed frame opens; with keys none that was not sealed.
    let mut clear = Receiver::new(PACKET_LEN_MAX);
    let mut arena = data.to_vec();
    let mut input = Input::new(&mut arena);
    while let Ok(Some(packet)) = clear.next(&mut input) {
        assert!(!packet.payload.bytes.is_empty());
        let place = packet.payload.place();
        assert!(place.start + place.len <= data.len(), "inside of the arena");
        assert_eq!(
            packet.payload.bytes,
            &data[place.start..place.start + place.len]
        );
    }
    for suite in Suite::every() {
        let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
        let mut arena = data.to_vec();
        let opened = receiver.next(&mut Input::new(&mut arena));
        assert!(!matches!(opened, Ok(Some(_))), "a forged packet was opened");
        changed_on_the_way(suite, data);
    }
}

/// Arbitrary bytes as pieces of a compressed stream, in packets that are otherwise good: payloads
/// within their bound come out, or an error.
///
/// The first byte says how long the pieces are.
pub fn compressed_payloads(data: &[u8]) {
    let Some((&piece_len, stream)) = data.split_first() else {
        return;
    };
    let plain = Suite::aead(CipherName::Aes128Gcm);
    let suite = Suite {
        compression: Compression::ZlibOpenSsh,
        ..plain
    };
    let mut sender = Sender::with_test_keys(plain);
    let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
    let mut arena = vec![0; 1 << 20];
    for piece in stream.chunks(usize::from(piece_len) * 16 + 1) {
        sender.send(piece).expect("a few kilobytes fit");
        let len = sender.output().len();
        arena[..len].copy_from_slice(sender.output());
        sender.consume(len);
        match receiver.next(&mut Input::with_space(&mut arena, len)) {
            Ok(Some(packet)) => {
                let place = packet.payload.place();
                assert!((1..=PACKET_LEN_MAX as usize).contains(&place.len));
                assert!(place.start >= len, "behind the packet");
            }
            Ok(None) => panic!("there is space"),
            Err(PacketError::BadCompression) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Seals the payloads that `data` describes, changes one byte, and opens them again: all before
/// the change come out as they went in, and nothing after it.
fn changed_on_the_way(suite: Suite, data: &[u8]) {
    let Some((&[where_high, where_low, flip, payload_len], data)) = data.split_first_chunk() else {
        return;
    };
    if data.is_empty() {
        return;
    }
    let payloads: Vec<&[u8]> = data.chunks(usize::from(payload_len) + 1).collect();
    let mut sender = Sender::with_test_keys(suite);
    let mut ends = Vec::new();
    for payload in &payloads {
        sender.send(payload).expect("a few hundred bytes fit");
        ends.push(sender.output().len());
    }
    let mut arena = sender.output().to_vec();
    let at = usize::from(u16::from_be_bytes([where_high, where_low])) % arena.len();
    arena[at] ^= flip;
    let good = if flip == 0 {
        ends.len()
    } else {
        ends.partition_point(|&end| end <= at)
    };

    let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
    let mut input = Input::new(&mut arena);
    for payload in &payloads[..good] {
        let packet = receiver
            .next(&mut input)
            .expect("unchanged")
            .expect("complete");
        assert_eq!(packet.payload.bytes, *payload);
    }
    match receiver.next(&mut input) {
        Ok(None) => {} // the end, or a length that now asks for more
        Ok(Some(_)) => panic!("a changed packet was opened"),
        Err(PacketError::BadTag | PacketError::BadLength) => assert_ne!(flip, 0),
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines_and_noise_pass() {
        for line in [
            "SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
            "hello\r\nSSH-2.0-x\n",
            "GET /\r\n",
        ] {
            for role in 0..2 {
                for piece_len in [0, 3, 255] {
                    ident_lines(&[&[role, piece_len][..], line.as_bytes()].concat());
                }
            }
        }
    }

    #[test]
    fn a_stream_in_pieces_and_noise_pass() {
        // Stored, and with a code of its own; cut where it may be and where it may not.
        let stored = b"\x78\x01\x00\x05\x00\xfa\xffhello";
        for piece_len in [0, 1, 9] {
            compressed_payloads(&[&[piece_len][..], stored].concat());
            compressed_payloads(&[&[piece_len][..], b"no stream at all"].concat());
        }
    }

    #[test]
    fn every_change_of_every_byte_is_noticed() {
        for at in 0..200_u16 {
            let [high, low] = at.to_be_bytes();
            packet_layer(&[&[high, low, 0x10, 6][..], b"three payloads, more or less"].concat());
        }
        packet_layer(&[&[0, 0, 0, 9][..], b"nothing is changed here"].concat());
        // A frame without keys: length 12, padding 4, seven bytes of payload.
        packet_layer(b"\0\0\0\x0c\x04payload\0\0\0\0");
    }
}
