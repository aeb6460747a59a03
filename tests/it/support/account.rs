//! A storage account as the tests use it past the library: with requests and shared access
//! signatures that are signed by code of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;
use time::OffsetDateTime;
use ureq::http::{HeaderMap, Request};

/// The version that requests and signatures are for.
const VERSION: &str = "2021-08-06";
/// What the header of a metadata value begins with.
const METADATA: &str = "x-ms-meta-";

/// An account, its endpoint and its key.
#[derive(Clone)]
pub(crate) struct Account {
    endpoint: String,
    name: String,
    key: Vec<u8>,
}

/// What the service answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-ms-error-code`.
    pub(crate) code: Option<String>,
}

impl Account {
    /// The account of a connection string that has its key.
    pub(crate) fn parse(connection_string: &str) -> Self {
        let part = |wanted: &str| {
            connection_string.split(';').find_map(|part| {
                let (name, value) = part.split_once('=')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.to_owned())
            })
        };
        let name = part("AccountName").expect("the connection string has an account name");
        let key = part("AccountKey").expect("the connection string has an account key");
        let suffix = part("EndpointSuffix").unwrap_or_else(|| "core.windows.net".to_owned());
        let endpoint =
            part("BlobEndpoint").unwrap_or_else(|| format!("https://{name}.blob.{suffix}"));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            key: STANDARD.decode(key).expect("the account key is base64"),
            name,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Writes to a blob, with a lease ID or without.
    pub(crate) fn write_blob(&self, path: &str, lease_id: Option<&str>) -> Answer {
        self.write_content(path, lease_id, b"")
    }

    /// Replaces a blob's content, and its metadata by none.
    pub(crate) fn write_content(&self, path: &str, lease_id: Option<&str>, to: &[u8]) -> Answer {
        let mut headers = vec![("x-ms-blob-type", "BlockBlob")];
        headers.extend(lease_id.map(|id| ("x-ms-lease-id", id)));
        self.exchange("PUT", path, "", &headers, to).0
    }

    /// Replaces a blob's metadata.
    pub(crate) fn write_metadata(
        &self,
        path: &str,
        lease_id: Option<&str>,
        metadata: &[(&str, &str)],
    ) -> Answer {
        let names: Vec<_> = metadata
            .iter()
            .map(|(name, _)| format!("{METADATA}{name}"))
            .collect();
        let mut headers: Vec<_> = names
            .iter()
            .zip(metadata)
            .map(|(name, (_, value))| (name.as_str(), *value))
            .collect();
        headers.extend(lease_id.map(|id| ("x-ms-lease-id", id)));
        self.send("PUT", path, "comp=metadata", &headers)
    }

    /// A blob's metadata, names in lower case.
    pub(crate) fn metadata(&self, path: &str) -> BTreeMap<String, String> {
        let (answer, headers) = self.exchange("HEAD", path, "", &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        headers
            .iter()
            .filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix(METADATA)?;
                Some((name.to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect()
    }

    pub(crate) fn delete_blob(&self, path: &str, lease_id: Option<&str>) -> Answer {
        let headers: Vec<_> = lease_id
            .map(|id| ("x-ms-lease-id", id))
            .into_iter()
            .collect();
        self.send("DELETE", path, "", &headers)
    }

    pub(crate) fn create_container(&self, name: &str) -> Answer {
        self.send("PUT", name, "restype=container", &[])
    }

    pub(crate) fn delete_container(&self, name: &str) -> Answer {
        self.send("DELETE", name, "restype=container", &[])
    }

    /// Sends a signed request. `path`: plain characters alone; `query`: at most one parameter.
    fn send(&self, method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Answer {
        self.exchange(method, path, query, headers, b"").0
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (Answer, HeaderMap) {
        let url = format!("{}/{path}", self.endpoint);
        let (_, rest) = url.split_once("://").expect("an endpoint has a scheme");
        let path = &rest[rest.find('/').expect("an endpoint ends before the path")..];
        let date = http_date(OffsetDateTime::now_utc());
        let mut signed = vec![("x-ms-date", date.as_str()), ("x-ms-version", VERSION)];
        signed.extend(headers);
        signed.sort_unstable();
        let length = match body.len() {
            0 => String::new(),
            length => length.to_string(),
        };
        let mut text = format!("{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n");
        for (name, value) in &signed {
            text.push_str(&format!("{name}:{value}\n"));
        }
        text.push_str(&format!("/{}{path}", self.name));
        if let Some((name, value)) = query.split_once('=') {
            text.push_str(&format!("\n{name}:{value}"));
        }
        let authorization = format!("SharedKey {}:{}", self.name, self.sign(&text));
        let url = match query {
            "" => url,
            query => format!("{url}?{query}"),
        };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in &signed {
            request = request.header(*name, *value);
        }
        let request = request.header("authorization", authorization);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .new_agent();
        let reply = match method {
            "PUT" => agent.run(request.body(body).expect("a request")),
            _ => agent.run(request.body(()).expect("a request")),
        };
        let reply = reply.expect("the service answers");
        let code = reply.headers().get("x-ms-error-code");
        let answer = Answer {
            status: reply.status().as_u16(),
            code: code.map(|code| code.to_str().expect("a code is text").to_owned()),
        };
        (answer, reply.headers().clone())
    }

    /// An account SAS for containers and blobs: to read, write, create, delete and list for so
    /// long.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
    pub(crate) fn sas(&self, lasts: Duration) -> String {
        let end = sas_time(OffsetDateTime::now_utc() + lasts);
        let name = &self.name;
        let text = format!("{name}\nrwdlc\nb\nco\n\n{end}\n\nhttps,http\n{VERSION}\n\n");
        token(&[
            ("sv", VERSION),
            ("ss", "b"),
            ("srt", "co"),
            ("sp", "rwdlc"),
            ("se", &end),
            ("spr", "https,http"),
            ("sig", &self.sign(&text)),
        ])
    }

    /// A service SAS for the blobs of one container, without the right to create the container.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
    pub(crate) fn sas_of_container(&self, container: &str, lasts: Duration) -> String {
        self.sas_that_allows("rcwl", container, lasts)
    }

    /// The same with these permissions.
    pub(crate) fn sas_that_allows(
        &self,
        permissions: &str,
        container: &str,
        lasts: Duration,
    ) -> String {
        let end = sas_time(OffsetDateTime::now_utc() + lasts);
        let resource = format!("/blob/{}/{container}", self.name);
        // Fields that are empty keep their line ends.
        let text = format!("{permissions}\n\n{end}\n{resource}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n");
        token(&[
            ("sv", VERSION),
            ("sr", "c"),
            ("sp", permissions),
            ("se", &end),
            ("sig", &self.sign(&text)),
        ])
    }

    fn sign(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        mac.update(text.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

fn token(parameters: &[(&str, &str)]) -> String {
    let encode = |value| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    let pairs = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Such as `2026-01-31T12:00:00Z`.
fn sas_time(at: OffsetDateTime) -> String {
    let (h, m, s) = at.to_hms();
    format!("{}T{h:02}:{m:02}:{s:02}Z", at.date())
}

/// Such as `Sat, 31 Jan 2026 12:00:00 GMT`.
pub(crate) fn http_date(at: OffsetDateTime) -> String {
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (h, m, s) = at.to_hms();
    let (day, year) = (at.day(), at.year());
    format!(
        "{}, {day:02} {} {year} {h:02}:{m:02}:{s:02} GMT",
        &weekday[..3],
        &month[..3]
    )
}
