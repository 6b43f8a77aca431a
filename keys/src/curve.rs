//! The curves of ECDSA keys (RFC 5656 §10.1) and what their fields and points measure.

use crate::algorithm::KeyType;

/// A curve.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The name inside a key's blob.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Length of a coordinate and of a private scalar, in bytes.
    pub(crate) const fn scalar_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Length of a point that is not compressed (SEC 1 §2.3.3), in bytes.
    pub(crate) const fn point_len(self) -> usize {
        1 + 2 * self.scalar_len()
    }

    /// Whether `point` has the form in which SSH has points: not compressed, of the right length.
    /// Whether it lies on the curve is seen when it is used.
    pub(crate) fn fits(self, point: &[u8]) -> bool {
        point.len() == self.point_len() && point.first() == Some(&4)
    }

    /// The type of plain keys on it.
    pub(crate) const fn key_type(self) -> KeyType {
        match self {
            Self::P256 => KeyType::EcdsaP256,
            Self::P384 => KeyType::EcdsaP384,
            Self::P521 => KeyType::EcdsaP521,
        }
    }

    /// The curve of plain keys of that type.
    pub(crate) fn of(key_type: KeyType) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|each| each.key_type() == key_type)
    }
}
