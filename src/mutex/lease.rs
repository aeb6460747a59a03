use crate::azure::validate::check_key;
use crate::error::Error;
use crate::lease::ids::LeaseId;

/// An acquired lease: its key and ID.
///
/// Anyone who has both can renew, change and release it. For a lease that another process acquired,
/// use [`Lease::new`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    key: String,
    id: LeaseId,
}

impl Lease {
    /// The lease on `key` with a known ID. Sends nothing, so the lease may no longer exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is not a valid blob name.
    pub fn new(key: &str, id: LeaseId) -> Result<Self, Error> {
        check_key(key)?;
        Ok(Self {
            key: key.to_owned(),
            id,
        })
    }

    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The lease ID.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.id
    }
}
