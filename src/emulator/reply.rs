//! PURE: replies as the service writes them, header by header.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use time::OffsetDateTime;

use super::failure::{Failure, Origin};
use crate::time::dates;

const SERVICE: &str = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0";
const FRONT_DOOR: &str = "Microsoft-HTTPAPI/2.0";
const CHALLENGE: &str = "Bearer authorization_uri=https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/oauth2/authorize resource_id=https://storage.azure.com";
/// What every XML body begins with: a byte order mark and the declaration.
const XML: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>";

/// What a reply depends on: the request and the time.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Counts the replies.
    pub(super) serial: u64,
    pub(super) wall: OffsetDateTime,
    pub(super) version: Option<&'a str>,
    pub(super) client_request_id: Option<&'a str>,
    pub(super) is_head: bool,
    /// The connection ends with this reply.
    pub(super) is_last: bool,
    /// An empty success usually has a length of 0, and is chunked now and then.
    pub(super) chunk_empty: bool,
}

impl Context<'_> {
    /// Whether the request asks for this version of the service or a later one.
    fn is_since(&self, version: &str) -> bool {
        self.version.is_none_or(|asked| asked >= version)
    }

    fn request_id(&self) -> String {
        // Multiplied, so that IDs differ from each other as much as the service's do.
        let mixed = (self.serial + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!(
            "{:08x}-{:02x}1e-00{:02x}-{:04x}-{:06x}000000",
            mixed >> 32,
            mixed >> 24 & 0xff,
            mixed >> 16 & 0x7f,
            mixed & 0xffff,
            self.serial & 0xff_ffff,
        )
    }
}

/// The body of a success.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    /// The bytes of a blob, or a part of them.
    Content(Arc<[u8]>, std::ops::Range<usize>),
    /// XML, whose length is not known beforehand.
    List(String),
}

/// A success.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    entity: Vec<(&'static str, String)>,
    extra: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Body,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            entity: Vec::new(),
            extra: Vec::new(),
            body: Body::Empty,
        }
    }

    /// A header about the resource. These come before the `Server` header.
    pub(super) fn entity(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.entity.push((name, value.into()));
        self
    }

    /// A header of the service's own. These come after `x-ms-version`.
    pub(super) fn extra(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.body, Body::Empty)
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The reply as bytes, to be written in one go.
    pub(super) fn write(&self, context: &Context<'_>) -> Vec<u8> {
        let mut head = String::with_capacity(1024);
        status_line(&mut head, self.status, reason(self.status));
        match &self.body {
            Body::Empty if context.chunk_empty && !context.is_head => {
                header(&mut head, "Transfer-Encoding", "chunked");
            }
            Body::Empty => header(&mut head, "Content-Length", "0"),
            Body::Content(_, range) => {
                header(&mut head, "Content-Length", &range.len().to_string());
            }
            Body::List(_) => header(&mut head, "Transfer-Encoding", "chunked"),
        }
        for (name, value) in &self.entity {
            header(&mut head, name, value);
        }
        header(&mut head, "Server", SERVICE);
        header(&mut head, "x-ms-request-id", &context.request_id());
        echo(&mut head, context);
        for (name, value) in &self.extra {
            header(&mut head, name, value);
        }
        end(&mut head, context);

        let mut out = head.into_bytes();
        match &self.body {
            _ if context.is_head => {}
            Body::Empty if context.chunk_empty => out.extend_from_slice(b"0\r\n\r\n"),
            Body::Empty => {}
            Body::Content(content, range) => out.extend_from_slice(&content[range.clone()]),
            Body::List(xml) => {
                let size = format!("{:x}\r\n", XML.len() + xml.len());
                for part in [&size, XML, xml, "\r\n0\r\n\r\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
        out
    }
}

impl Failure {
    /// The refusal as bytes, to be written in one go.
    pub(super) fn write(&self, context: &Context<'_>) -> Vec<u8> {
        let mut head = String::with_capacity(1024);
        status_line(&mut head, self.status, self.message);
        if self.origin == Origin::Http {
            header(&mut head, "Content-Length", "0");
            header(&mut head, "Server", FRONT_DOOR);
            end(&mut head, context);
            return head.into_bytes();
        }
        let request_id = context.request_id();
        let mut body = String::new();
        if self.status == 304 {
            // Not modified: neither a length nor a body.
        } else if context.is_head {
            header(&mut head, "Transfer-Encoding", "chunked");
        } else {
            body = self.body(&request_id, context.wall);
            header(&mut head, "Content-Length", &body.len().to_string());
            header(&mut head, "Content-Type", "application/xml");
        }
        let is_service = self.origin == Origin::Service;
        let server = if is_service { SERVICE } else { FRONT_DOOR };
        header(&mut head, "Server", server);
        header(&mut head, "x-ms-request-id", &request_id);
        if is_service {
            echo(&mut head, context);
        }
        // Older versions have the code in the body only.
        if context.is_since("2017-07-29") {
            header(&mut head, "x-ms-error-code", self.code);
        }
        if self.status == 401 {
            header(&mut head, "WWW-Authenticate", CHALLENGE);
        }
        end(&mut head, context);
        head.push_str(&body);
        head.into_bytes()
    }

    fn body(&self, request_id: &str, wall: OffsetDateTime) -> String {
        let mut xml = String::with_capacity(512);
        xml.push_str(XML);
        xml.push_str("<Error>");
        element(&mut xml, "Code", self.code);
        let time = precise_date(wall);
        let message = format!("{}\nRequestId:{request_id}\nTime:{time}", self.message);
        element(&mut xml, "Message", &message);
        for (name, text) in &self.details {
            element(&mut xml, name, text);
        }
        xml.push_str("</Error>");
        xml
    }
}

fn status_line(out: &mut String, status: u16, reason: &str) {
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n"); // Writing to a string cannot fail.
}

fn header(out: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.push_str(part);
    }
}

/// The headers of the request that the service echoes.
fn echo(out: &mut String, context: &Context<'_>) {
    if let Some(id) = context.client_request_id
        && context.is_since("2020-04-08")
    {
        header(out, "x-ms-client-request-id", id);
    }
    if let Some(version) = context.version {
        header(out, "x-ms-version", version);
    }
}

fn end(out: &mut String, context: &Context<'_>) {
    header(out, "Date", &dates::http(context.wall));
    if context.is_last {
        header(out, "Connection", "close");
    }
    out.push_str("\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        _ => "Partial Content",
    }
}

/// Appends `<name>text</name>`, or `<name />` when there is no text.
pub(super) fn element(out: &mut String, name: &str, text: &str) {
    if text.is_empty() {
        let _ = write!(out, "<{name} />"); // Writing to a string cannot fail.
    } else {
        let _ = write!(out, "<{name}>");
        escape(out, text);
        let _ = write!(out, "</{name}>");
    }
}

/// Escapes only what XML text needs: quotes and non-ASCII letters stay as they are.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // XML cannot represent these.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// `1994-11-06T08:49:37.1234567Z`
fn precise_date(at: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond() / 100
    )
}
