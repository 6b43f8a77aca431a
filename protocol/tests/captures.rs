//! Real conversations, read with both decoders and written again.
//!
//! `captures/openssh-9.2p1-*.bin` is what OpenSSH's `sftp` and `sftp-server` (9.2p1, Debian 12)
//! said to each other while these commands ran in a directory with a file `a.txt` and a link `l`:
//! `ls -l`, `get a.txt`, `put -f … b.txt`, `get missing.txt`, `rename b.txt c.txt`,
//! `rename -l c.txt g.txt`, `ln a.txt h.txt`, `symlink a.txt s.txt`, `df .`, `chmod 600 g.txt`,
//! `chmod -h 777 l`, `mkdir d`, `rmdir d`, `rm g.txt`, `copy a.txt e.txt`.

use ketch_protocol::{
    Data, Extension, ExtensionName, ExtensionSet, FileType, Limits, Owner, ReplyDecoder,
    ReplyEvent, Request, RequestDecoder, RequestEvent, RequestId, Response, ServerLimits, StatVfs,
    StatusCode, Symlink, UsersGroups, Write,
};

const REQUESTS: &[u8] = include_bytes!("captures/openssh-9.2p1-requests.bin");
const REPLIES: &[u8] = include_bytes!("captures/openssh-9.2p1-replies.bin");

/// Hands every event of the capture from the client to `on_event`.
fn each_request(mut on_event: impl FnMut(RequestEvent<'_>)) {
    let mut decoder = RequestDecoder::new(Limits::default());
    let mut input = REQUESTS;
    loop {
        let step = decoder.next(input).unwrap();
        input = &input[step.consumed..];
        match step.event {
            Some(event) => on_event(event),
            None => break,
        }
    }
    assert!(input.is_empty());
}

/// Hands every event of the capture from the server to `on_event`.
fn each_reply(mut on_event: impl FnMut(ReplyEvent<'_>)) {
    let mut decoder = ReplyDecoder::new(Limits::default());
    let mut input = REPLIES;
    loop {
        let step = decoder.next(input).unwrap();
        input = &input[step.consumed..];
        match step.event {
            Some(event) => on_event(event),
            None => break,
        }
    }
    assert!(input.is_empty());
}

#[test]
fn what_openssh_asks_is_written_again_as_it_was() {
    let mut out = Vec::new();
    let mut write = (0, Vec::new(), 0);
    each_request(|event: RequestEvent<'_>| match event {
        RequestEvent::Init(init) => init.encode_packet(&mut out),
        RequestEvent::Request { id, request } => request.encode_packet(id, &mut out),
        RequestEvent::WriteStart {
            id, handle, offset, ..
        } => write = (id, handle.to_vec(), offset),
        RequestEvent::WritePiece { bytes, .. } => {
            let (id, handle, offset) = &write;
            let request = Write {
                handle,
                offset: *offset,
                data: bytes,
            };
            Request::Write(request).encode_packet(*id, &mut out);
        }
        RequestEvent::WriteEnd { .. } => {}
        RequestEvent::Refused { .. } => panic!("{event:?}"),
    });
    assert_eq!(out, REQUESTS);
}

#[test]
fn what_openssh_answers_is_written_again_as_it_was() {
    let mut out = Vec::new();
    each_reply(|event: ReplyEvent<'_>| match event {
        ReplyEvent::Version(version) => version.encode_packet(&mut out),
        ReplyEvent::Reply { id, response } => response.encode_packet(id, &mut out),
        ReplyEvent::DataStart { .. } | ReplyEvent::DataEnd { .. } => {}
        ReplyEvent::DataPiece { id, bytes, .. } => {
            Response::Data(Data { data: bytes }).encode_packet(id, &mut out);
        }
        ReplyEvent::Skipped { .. } => panic!("{event:?}"),
    });
    assert_eq!(out, REPLIES);
}

#[test]
fn openssh_asks_with_these_extensions() {
    let mut asked = ExtensionSet::EMPTY;
    let mut link = None;
    each_request(|event: RequestEvent<'_>| match event {
        RequestEvent::Request {
            request: Request::Extended(extension),
            ..
        } => {
            assert!(
                !matches!(extension, Extension::Unknown { .. }),
                "{extension:?}"
            );
            asked.insert(ExtensionName::from_wire(extension.name()).unwrap());
        }
        RequestEvent::Request {
            request:
                Request::Symlink(Symlink {
                    target, link: path, ..
                }),
            ..
        } => {
            link = Some((target.to_vec(), path.to_vec()));
        }
        _ => {}
    });
    let expected = [
        ExtensionName::PosixRename,
        ExtensionName::Statvfs,
        ExtensionName::Hardlink,
        ExtensionName::Fsync,
        ExtensionName::Lsetstat,
        ExtensionName::Limits,
        ExtensionName::CopyData,
        ExtensionName::UsersGroupsById,
    ];
    assert_eq!(asked, expected.into_iter().collect());
    assert_eq!(
        link,
        Some((b"a.txt".to_vec(), b"/tmp/ketch/s.txt".to_vec())),
        "target first"
    );
}

/// One reply of the capture, copied out by `read`.
fn reply<T>(wanted: RequestId, read: impl Fn(Response<'_>) -> T) -> T {
    let mut found = None;
    each_reply(|event: ReplyEvent<'_>| {
        if let ReplyEvent::Reply { id, response } = event
            && id == wanted
        {
            found = Some(read(response));
        }
    });
    found.unwrap()
}

#[test]
fn openssh_has_every_extension_that_is_known_here_but_checksums_and_the_change_feed() {
    let others = [
        ExtensionName::CheckFileHandle,
        ExtensionName::CheckFileName,
        ExtensionName::Watch,
        ExtensionName::WatchRead,
    ];
    let all = ExtensionName::ALL.iter().copied();
    let openssh: ExtensionSet = all.filter(|name| !others.contains(name)).collect();
    each_reply(|event: ReplyEvent<'_>| {
        if let ReplyEvent::Version(version) = event {
            assert_eq!(version.version, 3);
            let set = ExtensionSet::from_pairs(version.extensions);
            assert_eq!(set, openssh);
            assert_eq!(version.extensions.len(), openssh.iter().count());
        }
    });
}

#[test]
fn replies_to_extensions_are_read() {
    let limits = reply(1, |response| match response {
        Response::ExtendedReply(data) => ServerLimits::decode(ketch_protocol::Reader::new(data)),
        other => panic!("{other:?}"),
    });
    let limits = limits.unwrap();
    assert_eq!(limits.packet_len, 256 * 1024);
    assert_eq!(
        (limits.read_len, limits.write_len),
        (255 * 1024, 255 * 1024)
    );

    reply(7, |response| {
        let Response::ExtendedReply(data) = response else {
            panic!("{response:?}")
        };
        let names = UsersGroups::decode(ketch_protocol::Reader::new(data)).unwrap();
        assert_eq!(
            names.users.iter().collect::<Vec<_>>(),
            [&b"root"[..], b"nobody"]
        );
        assert_eq!(
            names.groups.iter().collect::<Vec<_>>(),
            [&b"root"[..], b"nogroup"]
        );
    });

    reply(23, |response| {
        let Response::ExtendedReply(data) = response else {
            panic!("{response:?}")
        };
        let statvfs = StatVfs::decode(ketch_protocol::Reader::new(data)).unwrap();
        assert_eq!((statvfs.block_size, statvfs.fragment_size), (4096, 4096));
        assert_eq!((statvfs.flags, statvfs.name_max), (0, 255));
    });
}

#[test]
fn a_listing_is_read() {
    reply(4, |response| {
        let Response::Name(names) = response else {
            panic!("{response:?}")
        };
        let mut names: Vec<_> = names.iter().collect();
        names.sort_by_key(|entry| entry.filename);
        let read: Vec<_> = names
            .iter()
            .map(|entry| (entry.filename, entry.file_type()))
            .collect();
        let directory = FileType::Directory;
        assert_eq!(
            read,
            [
                (&b"."[..], directory),
                (b"..", directory),
                (b"a.txt", FileType::Regular),
                (b"l", FileType::Symlink),
            ]
        );
        assert_eq!(names[2].attrs.attrs.size, Some(12));
        assert_eq!(names[2].attrs.attrs.mode(), Some(0o644));
        assert_eq!(
            names[3].attrs.attrs.owner,
            Some(Owner {
                uid: 65534,
                gid: 65534
            })
        );
        assert!(names[3].longname.starts_with(b"lrwxrwxrwx "));
    });
    reply(5, |response| {
        let Response::Status(status) = response else {
            panic!("{response:?}")
        };
        assert_eq!(
            (status.code, status.message),
            (StatusCode::EOF, &b"End of file"[..])
        );
    });
}
