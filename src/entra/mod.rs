//! Tokens from Microsoft Entra ID: where they come from, for each kind of identity.
//!
//! [`sign_in`](sign_in::SignIn) says who signs in and how; from it a [`Source`](token::Source) is
//! made. Nothing is asked, and no program started, before the first token is needed. A client asks
//! through a [`cache`](cache::TokenCache), which keeps the token and replaces it ahead of its end.

mod address;
mod application;
mod arc;
mod assertion;
pub(crate) mod cache;
mod certificate;
mod chain;
mod child;
mod cloud;
pub(crate) mod env;
mod exchange;
mod federation;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod identity;
mod managed;
mod plan;
pub(crate) mod provider;
mod refresh;
mod refusal;
mod reply;
#[cfg(test)]
mod scratch;
pub(crate) mod sign_in;
pub(crate) mod token;
mod tools;
