//! PURE: which operation a request asks for, and everything that it may carry.
//!
//! What is not in the tables here is refused: a client that depends on it would otherwise believe
//! that it had happened.

use super::failure::{self, Failure};
use super::request::{Request, Target};

/// The versions of the service that are known, from the first whose signatures and replies are
/// those of today.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/previous-azure-storage-service-versions>
#[rustfmt::skip]
const VERSIONS: [&str; 45] = [
    "2015-02-21", "2015-04-05", "2015-07-08", "2015-12-11", "2016-05-31", "2017-04-17",
    "2017-07-29", "2017-11-09", "2018-03-28", "2018-06-17", "2018-11-09", "2019-02-02",
    "2019-07-07", "2019-10-10", "2019-12-12", "2020-02-10", "2020-04-08", "2020-06-12",
    "2020-08-04", "2020-10-02", "2020-12-06", "2021-02-12", "2021-04-10", "2021-06-08",
    "2021-08-06", "2021-10-04", "2021-12-02", "2022-11-02", "2023-01-03", "2023-05-03",
    "2023-08-03", "2023-11-03", "2024-02-04", "2024-05-04", "2024-08-04", "2024-11-04",
    "2025-01-05", "2025-05-05", "2025-07-05", "2025-11-05", "2026-02-06", "2026-04-06",
    "2026-06-06", "2026-10-06", "2026-12-06",
];

/// Whether the service has this version, and the emulator knows it.
pub(super) fn is_version(text: &str) -> bool {
    VERSIONS.contains(&text)
}

/// An operation of the service that the emulator implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    ListContainers,
    CreateContainer,
    GetContainer,
    SetContainerMetadata,
    DeleteContainer,
    LeaseContainer,
    ListBlobs,
    PutBlob,
    PutBlock,
    PutBlockList,
    GetBlockList,
    GetBlob,
    SetBlobMetadata,
    DeleteBlob,
    LeaseBlob,
}

/// Headers and query parameters that any request may have.
const COMMON: &[&str] = &[
    "x-ms-date",
    "x-ms-version",
    "x-ms-client-request-id",
    "x-ms-return-client-request-id",
];
const COMMON_QUERY: &[&str] = &["comp", "restype", "timeout"];
/// The parameters of a SAS.
const SAS_QUERY: &[&str] = &[
    "sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "sig",
];

const LEASE_ID: &[&str] = &["x-ms-lease-id"];
const DATES: &[&str] = &["if-modified-since", "if-unmodified-since"];
const ETAGS: &[&str] = &["if-match", "if-none-match"];
/// With or without `x-ms-blob-` before it, each is a property of a blob's content.
const CONTENT: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
];
const BLOB_CONTENT: &[&str] = &[
    "x-ms-blob-cache-control",
    "x-ms-blob-content-disposition",
    "x-ms-blob-content-encoding",
    "x-ms-blob-content-language",
    "x-ms-blob-content-md5",
    "x-ms-blob-content-type",
];
const METADATA: &str = "x-ms-meta-";

/// What a SAS must allow for an operation.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permission {
    /// The letter in `srt` of an account SAS.
    pub(super) resource_type: char,
    /// The letters in `sp`, of which one is enough.
    pub(super) any_of: &'static str,
    /// Whether a service SAS can allow it.
    pub(super) by_service_sas: bool,
}

impl Operation {
    /// The operation, by method, path, `restype` and `comp`.
    pub(super) fn of(request: &Request<'_>, target: &Target<'_>) -> Result<Self, Failure> {
        let (restype, comp) = (request.parameter("restype"), request.parameter("comp"));
        // One without a value names no operation.
        let mut query = request.query();
        if let Some((name, _)) = query.find(|(name, value)| {
            value.is_empty()
                && ["restype", "comp"]
                    .iter()
                    .any(|n| name.eq_ignore_ascii_case(n))
        }) {
            return Err(Failure::invalid_query(name, ""));
        }
        let method = match request.method {
            // A HEAD is a GET whose reply has no body.
            "HEAD" => "GET",
            "GET" | "PUT" | "DELETE" | "POST" => request.method,
            _ => return Err(failure::UNSUPPORTED_HTTP_VERB),
        };
        let is_head = request.is_head();
        Ok(match (target, restype, method, comp) {
            (Target::Service, "", "GET", "list") if !is_head => Self::ListContainers,
            (Target::Container(_), "container", "PUT", "") => Self::CreateContainer,
            (Target::Container(_), "container", "GET", "" | "metadata") => Self::GetContainer,
            (Target::Container(_), "container", "PUT", "metadata") => Self::SetContainerMetadata,
            (Target::Container(_), "container", "DELETE", "") => Self::DeleteContainer,
            (Target::Container(_), "container", "PUT", "lease") => Self::LeaseContainer,
            (Target::Container(_), "container", "GET", "list") if !is_head => Self::ListBlobs,
            (Target::Blob(..), "", "PUT", "") => Self::PutBlob,
            (Target::Blob(..), "", "PUT", "block") => Self::PutBlock,
            (Target::Blob(..), "", "PUT", "blocklist") => Self::PutBlockList,
            (Target::Blob(..), "", "GET", "blocklist") if !is_head => Self::GetBlockList,
            (Target::Blob(..), "", "GET", "" | "metadata") => Self::GetBlob,
            (Target::Blob(..), "", "PUT", "metadata") => Self::SetBlobMetadata,
            (Target::Blob(..), "", "DELETE", "") => Self::DeleteBlob,
            (Target::Blob(..), "", "PUT", "lease") => Self::LeaseBlob,
            // Of the root container, which is named by no path here.
            (Target::Container(_), "", ..) => {
                return Err(Failure::invalid_query("restype", restype));
            }
            (_, _, _, "" | "metadata" | "lease" | "list" | "block" | "blocklist")
                if method != "POST" && matches!(restype, "" | "container") =>
            {
                return Err(failure::UNSUPPORTED_HTTP_VERB);
            }
            _ => return Err(Failure::not_implemented(restype, comp)),
        })
    }

    pub(super) fn permission(self, request: &Request<'_>) -> Permission {
        let (resource_type, any_of, by_service_sas) = match self {
            Self::ListContainers => ('s', "l", false),
            Self::CreateContainer => ('c', "cw", false),
            Self::GetContainer => ('c', "r", false),
            Self::SetContainerMetadata => ('c', "w", false),
            Self::DeleteContainer => ('c', "d", false),
            Self::LeaseContainer => ('c', lease_permission(request), false),
            Self::ListBlobs => ('c', "l", true),
            Self::PutBlob | Self::PutBlockList => ('o', "cw", true),
            Self::PutBlock | Self::SetBlobMetadata => ('o', "w", true),
            Self::GetBlob | Self::GetBlockList => ('o', "r", true),
            Self::DeleteBlob => ('o', "d", true),
            Self::LeaseBlob => ('o', lease_permission(request), true),
        };
        Permission {
            resource_type,
            any_of,
            by_service_sas,
        }
    }

    /// Refuses what the operation does not take.
    pub(super) fn check_form(self, request: &Request<'_>, by_sas: bool) -> Result<(), Failure> {
        let (queries, headers) = self.form(request);
        let mut seen = Vec::new();
        for (name, value) in request.query() {
            let lower = name.to_ascii_lowercase();
            let is_known = COMMON_QUERY.contains(&&*lower)
                || queries.contains(&&*lower)
                || by_sas && SAS_QUERY.contains(&&*lower);
            if !is_known {
                return Err(Failure::unsupported_query(name, value));
            }
            let is_timeout = lower == "timeout" && value.parse::<u32>().is_err();
            if is_timeout || seen.contains(&lower) {
                return Err(Failure::invalid_query(name, value));
            }
            seen.push(lower);
        }
        let mut seen = Vec::new();
        for (lower, value) in request.headers() {
            if !self.matters(lower) {
                continue;
            }
            if !COMMON.contains(&lower) && !headers.iter().any(|names| names.contains(&lower)) {
                let takes_metadata = headers.iter().any(|names| names.contains(&METADATA));
                if !(takes_metadata && lower.starts_with(METADATA)) {
                    return Err(Failure::unsupported_header(lower, value));
                }
            }
            if seen.contains(&lower) && !lower.starts_with(METADATA) {
                return Err(Failure::invalid_header(lower, value));
            }
            seen.push(lower);
        }
        Ok(())
    }

    /// Whether a header would change what the service does. Others are for HTTP alone.
    fn matters(self, lower: &str) -> bool {
        let is_put = !matches!(
            self,
            Self::ListContainers
                | Self::GetContainer
                | Self::ListBlobs
                | Self::GetBlob
                | Self::GetBlockList
        );
        lower.starts_with("x-ms-")
            || lower.starts_with("if-")
            || lower == "range"
            // Clients send a content type with anything.
            || is_put && lower != "content-type" && CONTENT.contains(&lower)
    }

    /// The query parameters and the headers that the operation takes.
    fn form(
        self,
        request: &Request<'_>,
    ) -> (&'static [&'static str], Vec<&'static [&'static str]>) {
        let none: &'static [&'static str] = &[];
        match self {
            Self::ListContainers => (&["prefix", "marker", "maxresults", "include"], vec![]),
            Self::ListBlobs => (
                &["prefix", "marker", "maxresults", "include", "delimiter"],
                vec![],
            ),
            Self::CreateContainer => (none, vec![&[METADATA]]),
            Self::GetContainer => (none, vec![LEASE_ID]),
            Self::SetContainerMetadata => (none, vec![LEASE_ID, &["if-modified-since", METADATA]]),
            Self::DeleteContainer => (none, vec![LEASE_ID, DATES]),
            Self::LeaseContainer => (none, vec![lease_headers(request), DATES]),
            Self::LeaseBlob => (none, vec![lease_headers(request), DATES, ETAGS]),
            Self::PutBlob => (
                none,
                vec![
                    LEASE_ID,
                    DATES,
                    ETAGS,
                    CONTENT,
                    BLOB_CONTENT,
                    &["x-ms-blob-type", METADATA],
                ],
            ),
            Self::PutBlock => (&["blockid"], vec![LEASE_ID, &["content-md5"]]),
            Self::PutBlockList => (
                none,
                vec![
                    LEASE_ID,
                    DATES,
                    ETAGS,
                    &["content-md5", METADATA],
                    BLOB_CONTENT,
                ],
            ),
            Self::GetBlockList => (&["blocklisttype"], vec![LEASE_ID]),
            Self::GetBlob if request.is_head() || request.parameter("comp") == "metadata" => {
                (none, vec![LEASE_ID, DATES, ETAGS])
            }
            Self::GetBlob => (none, vec![LEASE_ID, DATES, ETAGS, &["range", "x-ms-range"]]),
            Self::SetBlobMetadata => (none, vec![LEASE_ID, DATES, ETAGS, &[METADATA]]),
            Self::DeleteBlob => (
                none,
                vec![LEASE_ID, DATES, ETAGS, &["x-ms-delete-snapshots"]],
            ),
        }
    }
}

/// Breaking a lease is allowed to whoever may delete, too.
fn lease_permission(request: &Request<'_>) -> &'static str {
    match request.header("x-ms-lease-action") {
        Some(action) if action.eq_ignore_ascii_case("break") => "wd",
        _ => "w",
    }
}

/// Those of the action. The service documents each as allowed for these actions alone.
fn lease_headers(request: &Request<'_>) -> &'static [&'static str] {
    let action = request.header("x-ms-lease-action").unwrap_or_default();
    match action.to_ascii_lowercase().as_str() {
        "acquire" => &[
            "x-ms-lease-action",
            "x-ms-lease-duration",
            "x-ms-proposed-lease-id",
        ],
        "change" => &[
            "x-ms-lease-action",
            "x-ms-lease-id",
            "x-ms-proposed-lease-id",
        ],
        "break" => &["x-ms-lease-action", "x-ms-lease-break-period"],
        _ => &["x-ms-lease-action", "x-ms-lease-id"],
    }
}
