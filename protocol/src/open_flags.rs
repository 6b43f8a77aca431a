//! How a file is to be opened (draft-02 §6.3).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// `pflags` of an `OPEN`. Unknown bits are kept.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// The file will be read.
    pub const READ: Self = Self(0x01);
    /// The file will be written. Together with `READ`: both.
    pub const WRITE: Self = Self(0x02);
    /// All writes go to the end of the file, whatever offset they name.
    pub const APPEND: Self = Self(0x04);
    /// The file is created if it is not there.
    pub const CREATE: Self = Self(0x08);
    /// An existing file loses its content. The draft wants `CREATE` beside it.
    pub const TRUNCATE: Self = Self(0x10);
    /// The request fails if the file is there. The draft wants `CREATE` beside it.
    pub const EXCLUSIVE: Self = Self(0x20);

    /// Every flag of the draft.
    const KNOWN: [(Self, &'static str); 6] = [
        (Self::READ, "READ"),
        (Self::WRITE, "WRITE"),
        (Self::APPEND, "APPEND"),
        (Self::CREATE, "CREATE"),
        (Self::TRUNCATE, "TRUNCATE"),
        (Self::EXCLUSIVE, "EXCLUSIVE"),
    ];

    /// Whether all flags of `other` are set here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits that the draft does not know.
    #[must_use]
    pub const fn unknown_bits(self) -> u32 {
        self.0 & !0x3f
    }
}

impl BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for OpenFlags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (flag, name) in Self::KNOWN {
            if self.contains(flag) {
                set.entry(&format_args!("{name}"));
            }
        }
        if self.unknown_bits() != 0 {
            set.entry(&format_args!("{:#x}", self.unknown_bits()));
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_join_and_unknown_bits_stay() {
        let mut flags = OpenFlags::WRITE | OpenFlags::CREATE;
        flags |= OpenFlags::EXCLUSIVE;
        assert_eq!(flags.0, 0x2a);
        assert!(flags.contains(OpenFlags::WRITE | OpenFlags::EXCLUSIVE));
        assert!(!flags.contains(OpenFlags::READ));
        assert!(!flags.contains(OpenFlags::READ | OpenFlags::WRITE));
        assert_eq!(OpenFlags(0x41).unknown_bits(), 0x40);
        assert_eq!(format!("{:?}", OpenFlags(0x41)), "{READ, 0x40}");
    }
}
