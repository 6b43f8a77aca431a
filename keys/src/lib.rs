//! SSH keys: what identifies hosts and users, with the files they live in.
#![forbid(unsafe_code)]
