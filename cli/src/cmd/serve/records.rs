//! What a server tells of itself: the audit log, metrics and health, and the log for whoever runs it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ketch_server::{AuditLog, Metrics, Monitor, Observer, Server, ServerBuilder, ServerFile};
use tokio::net::TcpListener;

use crate::args::RecordArgs;
use crate::failed::Failed;
use crate::log;
use crate::plan::cannot;

/// The observers of a server, from its beginning to its end.
pub(super) struct Records {
    audit: Option<Arc<AuditLog>>,
    monitor: Option<(Arc<Metrics>, TcpListener)>,
}

impl Records {
    /// Opens what the command line asks for, or else the server's file.
    pub(super) async fn open(args: &RecordArgs, file: Option<&ServerFile>) -> Result<Self, Failed> {
        log::start(args.verbose, args.log_format);
        let named: Option<PathBuf> = args.audit_log.clone();
        let audit = match named.or_else(|| file.and_then(ServerFile::audit_log)) {
            Some(path) => {
                let log = AuditLog::open(&path).map_err(|error| cannot("open", &path, error))?;
                Some(Arc::new(log))
            }
            None => None,
        };
        let monitor = match args.metrics.or_else(|| file.and_then(ServerFile::metrics)) {
            Some(address) => {
                let cannot = |error| Failed::local(format!("cannot listen on {address}"), error);
                let listener = TcpListener::bind(address).await.map_err(cannot)?;
                Some((Arc::new(Metrics::default()), listener))
            }
            None => None,
        };
        Ok(Self { audit, monitor })
    }

    /// Has the server tell them.
    pub(super) fn observe(&self, mut builder: ServerBuilder) -> ServerBuilder {
        if let Some(log) = &self.audit {
            builder = builder.observer(Arc::clone(log) as Arc<dyn Observer>);
        }
        if let Some((metrics, _)) = &self.monitor {
            builder = builder.observer(Arc::clone(metrics) as Arc<dyn Observer>);
        }
        builder
    }

    /// Where metrics are told.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.monitor.as_ref()?.1.local_addr().ok()
    }

    /// What writes the audit log, for whoever is told to open it anew.
    pub(super) fn audit(&self) -> Option<Arc<AuditLog>> {
        self.audit.clone()
    }

    /// Answers about the server, as long as it runs; waits for ever if nobody is to be answered.
    pub(super) async fn serve(self, server: Server) -> io::Result<()> {
        let Some((metrics, listener)) = self.monitor else {
            return std::future::pending().await;
        };
        let mut monitor = Monitor::new(server, metrics);
        if let Some(log) = self.audit {
            monitor = monitor.audit_log(log);
        }
        monitor.serve(listener).await
    }
}
