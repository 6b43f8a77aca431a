//! Prints what changes below directories on servers, one line an event.
//!
//! `cargo run --example remote_watcher -- sftp://ann@files.example.com/in`
//!
//! Users, keys and hosts are those of the user's ssh configuration.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ketch_listener::RemoteWatcher;
use notify::{Config, RecursiveMode, Watcher};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (tell, told) = mpsc::channel();
    let config = Config::default().with_poll_interval(Duration::from_secs(2));
    let mut watcher = RemoteWatcher::new(tell, config)?;
    for url in std::env::args().skip(1) {
        watcher.watch(Path::new(&url), RecursiveMode::Recursive)?;
        println!("watching {url}");
    }
    for event in told {
        match event {
            Ok(event) => println!("{:?} {:?}", event.kind, event.paths),
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
