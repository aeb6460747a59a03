//! Acquires a lease and releases it, as often as the argument says, and prints its peak memory.

use std::{env, error::Error, fs};

use azure_core::http::Url;
use azure_storage_blob::BlobClient;
use azure_storage_blob::models::BlobClientAcquireLeaseResultHeaders;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = env::args().nth(1).ok_or("no count")?.parse()?;
    // The SDK takes no connection string and no account key.
    let url = Url::parse(&env::var("PEERS_BLOB_URL")?)?;
    let blob = BlobClient::new(url, None, None)?;
    for _ in 0..count {
        let lease = blob.acquire_lease(60, None).await?;
        let id = lease.lease_id()?.ok_or("no lease ID")?;
        blob.release_lease(id, None).await?;
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    println!("{}", peak.ok_or("no VmHWM")?);
    Ok(())
}
