//! Key files of `ssh-keygen`, `openssl` and `puttygen`.
