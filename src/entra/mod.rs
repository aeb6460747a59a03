//! Tokens from Microsoft Entra ID: where they come from, for each kind of identity.

pub(crate) mod cache;
pub(crate) mod identity;
pub(crate) mod provider;
pub(crate) mod refresh;
pub(crate) mod token;
