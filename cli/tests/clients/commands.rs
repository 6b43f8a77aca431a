//! Every command of sftp(1), by the client itself talking to `ketch-sftp-server` through a pipe.
