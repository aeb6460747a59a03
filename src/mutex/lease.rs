use crate::azure::validate::check_key;
use crate::error::Error;
use crate::lease::ids::LeaseId;

/// A lease that somebody acquired: its key and ID.
///
/// Whoever has both can renew, change and release it; [`Lease::new`] takes up one that another
/// process acquired.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    key: String,
    id: LeaseId,
}

impl Lease {
    /// The lease on `key` with a known ID. Asks nobody whether it still exists.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is no blob name.
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
