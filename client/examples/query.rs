//! Creates files in a folder, finds some by what is known of them, and deletes them.
//!
//! `cargo run --example query -- ann@sftp.example.com:in ~/.ssh/id_ed25519`

use ketch_client::operations::{Compare, Condition, Create, Folder, IfExists, Query, SortBy};
use ketch_client::{Connect, Destination, OnDemand, Pattern, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    // An open session would do as well.
    let folder = Folder::new(OnDemand::new(connect), &to.path);
    for content in ["one", "two", "three"] {
        // order.txt, order1.txt, order2.txt
        let options = Create::new().if_exists(IfExists::Number);
        let made = folder
            .create("order.txt", content.as_bytes(), options)
            .await?;
        println!("{}", made.path);
    }
    let wanted = Condition::All(vec![
        Condition::Glob(Pattern::new("order*.txt")?),
        Condition::Any(vec![
            Condition::Size(Compare::Greater, 3),
            Condition::Name(Compare::Equal, b"order.txt".to_vec()),
        ]),
    ]);
    let query = Query::new(wanted).sort(SortBy::Size).limit(10);
    for file in folder.query(&query).await? {
        println!("{}: {}", file.info.path, file.content.escape_ascii());
        folder.delete(&file.info.name).await?;
    }
    Ok(())
}
