//! SSH messages (RFC 4252, 4253, 4254): what decodes is encoded and decodes the same.

use ketch_transport::message::auth::{
    Banner, InfoRequest, InfoResponse, MethodRequest, PasswordChangeRequest, PkOk, UserauthFailure,
    UserauthRequest,
};
use ketch_transport::message::connection::{
    ChannelData, ChannelOnly, ChannelOpen, ChannelRequest, ExtendedData, GlobalRequest,
    OpenConfirmation, OpenFailure, WindowAdjust,
};
use ketch_transport::message::kex::{
    ClientPublic, GroupChoice, GroupRequest, KexInit, ServerReply,
};
use ketch_transport::message::number;
use ketch_transport::message::transport::{Disconnect, ExtInfo, Service, Unimplemented};
use ketch_transport::negotiation::negotiate;
use ketch_wire::{Reader, Writer};

/// A payload: the message's number, then its fields.
pub fn ssh_messages(data: &[u8]) {
    let Some((&number, fields)) = data.split_first() else {
        return;
    };
    /// Decodes, encodes and decodes again; both must be the same message.
    macro_rules! again {
        ($message:ty) => {
            again!($message, |message, w| message.encode(w))
        };
        ($message:ty, $encode:expr) => {
            if let Ok(message) = <$message>::decode(Reader::new(fields)) {
                let encode: fn(&$message, &mut Writer<'_>) = $encode;
                let mut payload = Vec::new();
                encode(&message, &mut Writer::new(&mut payload));
                let (first, rest) = payload.split_first().expect("at least its number");
                assert!(OF_MANY_NUMBERS.contains(first) || *first == number);
                assert_eq!(<$message>::decode(Reader::new(rest)), Ok(message));
            }
        };
    }
    match number {
        number::DISCONNECT => again!(Disconnect<'_>),
        number::UNIMPLEMENTED => again!(Unimplemented),
        number::SERVICE_REQUEST => {
            again!(Service<'_>, |message, w| message
                .encode(number::SERVICE_REQUEST, w));
        }
        number::EXT_INFO => again!(ExtInfo<'_>),
        number::KEXINIT => again!(KexInit<'_>),
        number::KEX_ECDH_INIT | number::KEX_DH_GEX_INIT => {
            again!(ClientPublic<'_>, |message, w| message
                .encode(number::KEX_ECDH_INIT, w));
        }
        // The number of the group in a group exchange, too.
        number::KEX_ECDH_REPLY | number::KEX_DH_GEX_REPLY => {
            again!(ServerReply<'_>, |message, w| message
                .encode(number::KEX_ECDH_REPLY, w));
            again!(GroupChoice<'_>);
        }
        number::KEX_DH_GEX_REQUEST => again!(GroupRequest),
        number::USERAUTH_REQUEST => userauth_request(fields),
        number::USERAUTH_FAILURE => again!(UserauthFailure<'_>),
        number::USERAUTH_BANNER => again!(Banner<'_>),
        // What it is depends on the method that was asked for.
        number::USERAUTH_PK_OK => {
            again!(PkOk<'_>);
            again!(PasswordChangeRequest<'_>);
            again!(InfoRequest<'_>);
        }
        number::USERAUTH_INFO_RESPONSE => again!(InfoResponse<'_>),
        number::GLOBAL_REQUEST => again!(GlobalRequest<'_>),
        number::CHANNEL_OPEN => again!(ChannelOpen<'_>),
        number::CHANNEL_OPEN_CONFIRMATION => again!(OpenConfirmation),
        number::CHANNEL_OPEN_FAILURE => again!(OpenFailure<'_>),
        number::CHANNEL_WINDOW_ADJUST => again!(WindowAdjust),
        number::CHANNEL_DATA => channel_data(fields),
        number::CHANNEL_EXTENDED_DATA => {
            let _ = ExtendedData::decode(Reader::new(fields));
        }
        _ if CHANNEL_ONLY.contains(&number) => {
            again!(ChannelOnly, |message, w| message
                .encode(number::CHANNEL_EOF, w));
        }
        number::CHANNEL_REQUEST => again!(ChannelRequest<'_>),
        _ => {}
    }
}

/// What one message of several that have the same form is written with.
const OF_MANY_NUMBERS: [u8; 4] = [
    number::KEX_ECDH_INIT,
    number::KEX_ECDH_REPLY,
    number::KEX_DH_GEX_GROUP,
    number::CHANNEL_EOF,
];

/// Messages that are only a channel number.
const CHANNEL_ONLY: [u8; 4] = [
    number::CHANNEL_EOF,
    number::CHANNEL_CLOSE,
    number::CHANNEL_SUCCESS,
    number::CHANNEL_FAILURE,
];

/// Passwords are kept out of what is printed, and other methods have fields that nobody keeps.
fn userauth_request(fields: &[u8]) {
    let Ok(message) = UserauthRequest::decode(Reader::new(fields)) else {
        return;
    };
    if let MethodRequest::Password(password) = message.method {
        let twin = UserauthRequest {
            method: MethodRequest::Password("another"),
            ..message
        };
        assert_eq!(
            format!("{message:?}"),
            format!("{twin:?}"),
            "{} bytes shown",
            password.len()
        );
    }
    if message.method != MethodRequest::Other {
        let mut payload = Vec::new();
        message.encode(&mut Writer::new(&mut payload));
        assert_eq!(
            UserauthRequest::decode(Reader::new(&payload[1..])),
            Ok(message)
        );
    }
}

fn channel_data(fields: &[u8]) {
    let Ok(message) = ChannelData::decode(Reader::new(fields)) else {
        return;
    };
    let len = u32::try_from(message.data.len()).expect("it came with a length");
    let header = ChannelData::header(message.recipient, len);
    assert_eq!(header[0], number::CHANNEL_DATA);
    assert_eq!([&header[1..], message.data].concat(), fields);
}

/// Two offers: both decode to what they were, and what is negotiated stands in both.
///
/// The first byte says whether the rest is two payloads as they stand, the first as long as the
/// next two bytes say, or chooses the names in them.
pub fn kexinit(data: &[u8]) {
    let Some((&[kind, high, low], rest)) = data.split_first_chunk() else {
        return;
    };
    if kind % 2 == 1 {
        let mut choices = rest.iter().copied();
        let (client, server) = (chosen_offer(&mut choices), chosen_offer(&mut choices));
        return two_offers(&client, &server);
    }
    let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (client, server) = rest.split_at(len);
    two_offers(client, server);
}

/// Names that mean something in an offer, and one that does not.
const NAMES: [&str; 15] = [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ext-info-c",
    "ext-info-s",
    "kex-strict-c-v00@openssh.com",
    "kex-strict-s-v00@openssh.com",
    "ssh-ed25519",
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "none",
    "no-such-name",
    "mlkem768x25519-sha256",
    "aes128-ctr",
    "hmac-sha2-256-etm@openssh.com",
];

/// The fields of an offer whose ten lists hold up to seven names each.
fn chosen_offer(choices: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut fields = vec![7; 16];
    let mut w = Writer::new(&mut fields);
    for _ in 0..10 {
        let count = usize::from(choices.next().unwrap_or(0) % 8);
        let names: Vec<&str> = choices
            .take(count)
            .map(|choice| NAMES[usize::from(choice) % NAMES.len()])
            .collect();
        w.names(names);
    }
    w.bool(choices.next().unwrap_or(0) % 2 == 1);
    w.u32(0);
    fields
}

fn two_offers(client: &[u8], server: &[u8]) {
    let client = KexInit::decode(Reader::new(client));
    let server = KexInit::decode(Reader::new(server));
    for offer in [&client, &server].into_iter().flatten() {
        let mut payload = Vec::new();
        offer.encode(&mut Writer::new(&mut payload));
        assert_eq!(KexInit::decode(Reader::new(&payload[1..])), Ok(*offer));
    }
    let (Ok(client), Ok(server)) = (client, server) else {
        return;
    };
    let Ok(chosen) = negotiate(&client, &server) else {
        return;
    };
    for offer in [client, server] {
        assert!(offer.kex.contains(chosen.kex.name()));
        assert!(offer.host_key.contains(chosen.host_key.name()));
        assert!(
            offer
                .cipher_client_to_server
                .contains(chosen.client_to_server.cipher.name())
        );
        assert!(
            offer
                .cipher_server_to_client
                .contains(chosen.server_to_client.cipher.name())
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_transport::message::connection::Request;
    use ketch_wire::NameList;

    fn payload(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut payload = Vec::new();
        encode(&mut Writer::new(&mut payload));
        payload
    }

    #[test]
    fn good_messages_pass_whole_and_cut() {
        let request = |method| UserauthRequest {
            user: "u",
            service: b"ssh-connection",
            method,
        };
        let messages = [
            payload(|w| {
                Service {
                    name: b"ssh-userauth",
                }
                .encode(number::SERVICE_REQUEST, w)
            }),
            payload(|w| {
                ExtInfo {
                    server_sig_algs: NameList::new("ssh-ed25519").ok(),
                    ping: true,
                    host_bound: true,
                }
                .encode(w)
            }),
            payload(|w| request(MethodRequest::Password("secret")).encode(w)),
            payload(|w| request(MethodRequest::None).encode(w)),
            payload(|w| request(MethodRequest::KeyboardInteractive).encode(w)),
            payload(|w| {
                let (old, new) = ("secret", "new");
                request(MethodRequest::PasswordChange { old, new }).encode(w);
            }),
            payload(|w| {
                request(MethodRequest::PublicKey {
                    algorithm: b"ssh-ed25519",
                    key: b"key",
                    host_key: Some(b"host"),
                    signature: b"signature",
                })
                .encode(w);
            }),
            payload(|w| {
                let answers = vec!["one", "two"];
                InfoResponse { answers }.encode(w);
            }),
            payload(|w| PasswordChangeRequest { prompt: b"new?" }.encode(w)),
            payload(|w| Banner { text: b"hello" }.encode(w)),
            payload(|w| {
                GlobalRequest {
                    name: b"keepalive@x",
                    want_reply: true,
                    data: &[],
                }
                .encode(w)
            }),
            payload(|w| {
                WindowAdjust {
                    recipient: 1,
                    bytes: 2,
                }
                .encode(w)
            }),
            payload(|w| ChannelOnly { recipient: 1 }.encode(number::CHANNEL_CLOSE, w)),
            payload(|w| {
                let request = Request::Subsystem("sftp");
                ChannelRequest {
                    recipient: 1,
                    want_reply: true,
                    request,
                }
                .encode(w);
            }),
            [&ChannelData::header(3, 4)[..], b"data"].concat(),
        ];
        for message in messages {
            (0..=message.len()).for_each(|cut| ssh_messages(&message[..cut]));
        }
    }

    #[test]
    fn good_offers_pass() {
        let list = |names| NameList::new(names).unwrap();
        let offer = |cipher| KexInit {
            cookie: [7; 16],
            kex: list("curve25519-sha256"),
            host_key: list("ssh-ed25519"),
            cipher_client_to_server: list(cipher),
            cipher_server_to_client: list(cipher),
            mac_client_to_server: NameList::EMPTY,
            mac_server_to_client: NameList::EMPTY,
            compression_client_to_server: list("none"),
            compression_server_to_client: list("none"),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: false,
        };
        let client = offer("aes256-gcm@openssh.com,aes128-gcm@openssh.com");
        let server = offer("aes128-gcm@openssh.com");
        assert!(
            negotiate(&client, &server).is_ok(),
            "reaches the law's last lines"
        );
        let (one, two) = (payload(|w| client.encode(w)), payload(|w| server.encode(w)));
        let len = u16::try_from(one.len() - 1).unwrap().to_be_bytes();
        kexinit(&[&[0][..], &len, &one[1..], &two[1..]].concat());
        // One name in each list that counts: key exchange, host key, ciphers, compression.
        let offer = [1, 0, 1, 6, 1, 7, 1, 7, 0, 0, 1, 10, 1, 10, 0, 0, 0];
        let mut choices = offer.into_iter();
        let chosen = chosen_offer(&mut choices);
        let chosen = KexInit::decode(Reader::new(&chosen)).unwrap();
        assert!(negotiate(&chosen, &chosen).is_ok(), "{chosen:?}");
        kexinit(&[&[1, 0, 0][..], &offer, &offer].concat());
    }
}
