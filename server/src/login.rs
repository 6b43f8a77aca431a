//! Who comes in: connections that are let in, attempts to log in, and who may stay.
//!
//! | module | what it decides |
//! | --- | --- |
//! | `admission`, `penalties` | whether a connection is let in, and whose turn it is to have keys exchanged |
//! | `users` | whether an attempt is right, and what is needed next |
//! | `credentials`, `password_hash`, `password_change`, `interview` | one kind of proof each |
//! | `stay` | from where, until when and how often at a time somebody may be there |
//!
//! Machines, all of them: `accept.rs` has the sockets and the clock.

pub(crate) mod admission;
pub(crate) mod credentials;
pub(crate) mod interview;
pub(crate) mod password_change;
pub(crate) mod password_hash;
pub(crate) mod penalties;
pub(crate) mod stay;
pub(crate) mod users;
