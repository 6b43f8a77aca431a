//! RFC 4251 §5: what a `Reader` lends is inside its bytes, and what is written again is the same.

use ketch_wire::{DecodeError, Reader, Writer};

/// Longest string that the script asks for.
const STRING_LEN_MAX: usize = 1024;

/// Reads fields whose types are chosen by the bytes themselves, until one does not fit.
///
/// Each field that was read is written again: both forms have to be the same bytes.
pub fn wire_fields(data: &[u8]) {
    // The first eight bytes choose the types, over and over.
    let Some((script, fields)) = data.split_first_chunk::<8>() else {
        return;
    };
    let mut r = Reader::new(fields);
    for choice in script.iter().cycle().take(256) {
        let before = r;
        let mut again = Vec::new();
        match one_field(*choice, &mut r, &mut Writer::new(&mut again)) {
            Ok(()) => {}
            Err(DecodeError::Trailing { .. }) => unreachable!("nobody asked for the end"),
            Err(_) => return,
        }
        let taken = before.remaining() - r.remaining();
        let whole = { before }.take_rest();
        assert_eq!(
            again,
            whole[..taken],
            "type {choice} is written as it was read"
        );
        if r.is_empty() {
            r.finish().expect("nothing is left");
            return;
        }
    }
}

fn one_field(choice: u8, r: &mut Reader<'_>, w: &mut Writer<'_>) -> Result<(), DecodeError> {
    match choice % 9 {
        0 => w.u8(r.u8()?),
        1 => {
            // All values but zero are true (RFC 4251 §5): this one has two forms.
            let byte = { *r }.u8()?;
            assert_eq!(r.bool()?, byte != 0);
            w.u8(byte);
        }
        2 => w.u32(r.u32()?),
        3 => w.u64(r.u64()?),
        4 => w.string(r.string(STRING_LEN_MAX)?),
        5 => w.string(r.text(STRING_LEN_MAX)?.as_bytes()),
        6 => {
            let number = r.mpint(STRING_LEN_MAX)?;
            assert_ne!(number.magnitude().first(), Some(&0), "no leading zero");
            assert!(number.magnitude().len() <= STRING_LEN_MAX);
            w.mpint(number.magnitude());
        }
        7 => {
            let list = r.name_list()?;
            assert!(
                list.iter()
                    .all(|name| !name.is_empty() && list.contains(name))
            );
            w.names(list.iter());
        }
        _ => w.bytes(r.bytes(usize::from(choice))?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_type_pass() {
        let mut data = vec![0, 1, 2, 3, 4, 5, 6, 7];
        let mut w = Writer::new(&mut data);
        w.u8(1);
        w.u8(7);
        w.u32(3);
        w.u64(4);
        w.string(&[0xff]);
        w.string(b"text");
        w.mpint(&[0x80]);
        w.names(["none", "zlib"]);
        wire_fields(&data);
        for cut in 0..data.len() {
            wire_fields(&data[..cut]);
        }
    }
}
