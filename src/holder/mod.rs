//! PURE: who holds a lock, as its holder writes it into the lock blob's metadata.

pub(crate) mod identity;
pub(crate) mod record;
pub(crate) mod terraform;
pub(crate) mod text;
