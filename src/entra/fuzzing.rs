//! What the fuzz targets feed with arbitrary bytes, and what must hold then.

use std::path::{Component, Path};

use time::OffsetDateTime;
use ureq::http::HeaderValue;

use super::arc;
use super::certificate::Certificate;
use super::refusal;
use super::reply;
use super::token::AccessToken;
use super::tools::Tool;
use crate::error::{Error, ErrorKind};
use crate::http::message::Reply;
use crate::text::is_invisible;

/// A reply to a request for a token: a line with the status, then the body.
///
/// # Panics
///
/// If a token that was accepted cannot be sent, or an error shows what it should not.
pub fn token_reply(data: &[u8]) {
    let (status, body) = first_line(data);
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    match reply::read_token(body, now) {
        Ok(token) => check_token(&token),
        Err(error) => check_error(&error),
    }
    let reply = Reply {
        status: status.trim().parse().unwrap_or(400),
        headers: Vec::new(),
        body: body.to_vec(),
    };
    let error = refusal::read_error(&reply, now);
    check_error(&error);
    assert!(!error.to_string().contains("eyJ"), "{error}");
}

/// What `az` printed, or `azd` if the first line says so.
///
/// # Panics
///
/// If a token that was accepted cannot be sent, or an error shows what it should not.
pub fn tool_output(data: &[u8]) {
    let (name, output) = first_line(data);
    let tool = match name.trim() {
        "azd" => Tool::AzureDeveloperCli,
        _ => Tool::AzureCli,
    };
    match tool.read(output, OffsetDateTime::UNIX_EPOCH) {
        Ok(token) => check_token(&token),
        Err(error) => check_error(&error),
    }
    let error = tool.failure(output);
    check_error(&error);
    assert!(!error.to_string().contains("eyJ"), "{error}");
}

/// The challenge of Azure Arc's agent.
///
/// # Panics
///
/// If the file is not one of the agent's.
pub fn challenge(data: &[u8]) {
    let folder = Path::new("/var/opt/azcmagent/tokens");
    match arc::key_path(&String::from_utf8_lossy(data), folder) {
        Ok(path) => {
            assert_eq!(path.parent(), Some(folder));
            assert!(path.components().all(|part| part != Component::ParentDir));
            assert!(path.extension().is_some_and(|extension| extension == "key"));
        }
        Err(error) => check_error(&error),
    }
}

/// A client's certificate and key.
///
/// # Panics
///
/// If an error is of another kind, or shows what it should not.
pub fn pem(data: &[u8]) {
    match Certificate::read(data, true) {
        Ok(certificate) => drop(certificate.assertion("https://login.example", "1f2e", 0)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            check_error(&error);
        }
    }
}

fn first_line(data: &[u8]) -> (String, &[u8]) {
    let at = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let rest = data.get(at + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&data[..at]).into_owned(), rest)
}

/// A token that was accepted can be sent, and is not shown.
fn check_token(token: &AccessToken) {
    assert!(HeaderValue::from_str(&format!("Bearer {}", token.secret())).is_ok());
    assert!(!token.secret().contains(' '));
    let shown = format!("{token:?}");
    assert!(
        shown.starts_with("AccessToken") && shown.len() < 60,
        "{shown}"
    );
}

fn check_error(error: &Error) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.chars().any(is_invisible), "{text:?}");
        assert!(text.len() < 4096, "{} bytes", text.len());
    }
}
