//! RSA keys of all sizes, made by `ssh-keygen` and `openssl`.

use std::cell::Cell;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};

thread_local! {
    static FAULT: Cell<bool> = const { Cell::new(false) };
}

/// Spoils the first half of a signature, if a test asked for it.
pub(super) fn inject(half: BoxedMontyForm, ring: &BoxedMontyParams) -> BoxedMontyForm {
    if FAULT.get() {
        half.add(&BoxedMontyForm::one(ring))
    } else {
        half
    }
}
