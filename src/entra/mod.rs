//! Tokens from Microsoft Entra ID: where they come from, for each kind of identity.

pub(crate) mod token;
