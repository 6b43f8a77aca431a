//! The law that every message has to keep, as a macro for the property tests beside each.

/// A message survives the wire, and every cut of its bytes is an error.
macro_rules! assert_survives {
    ($type:ident, $message:expr) => {{
        let message: $type<'_> = $message;
        let mut bytes = Vec::new();
        message.encode(&mut $crate::Writer::new(&mut bytes));
        proptest::prop_assert_eq!($type::decode($crate::Reader::new(&bytes)), Ok(message));
        for cut in 0..bytes.len() {
            proptest::prop_assert!($type::decode($crate::Reader::new(&bytes[..cut])).is_err());
        }
    }};
}
