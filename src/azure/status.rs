//! PURE: what the service says of a lease or of a lock blob.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::requests::METADATA;
use super::xml::{self, elements, text_of, texts};
use crate::error::{Error, ErrorKind};
use crate::holder::record::{Holder, Record};
use crate::http::message::Reply;
use crate::lease::ids::LeaseId;
use crate::time::dates;

/// The state of a lease, as the service tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseState {
    /// Nobody holds the lease, and nobody held it, or it was released.
    Available,
    /// Somebody holds the lease.
    Leased,
    /// The lease ran out without being released.
    Expired,
    /// The lease was broken and still runs until the end of its break period.
    Breaking,
    /// The lease was broken, and can be acquired.
    Broken,
    /// A state that this version does not know.
    Unknown,
}

impl LeaseState {
    fn parse(text: &str) -> Self {
        match text {
            "available" => Self::Available,
            "leased" => Self::Leased,
            "expired" => Self::Expired,
            "breaking" => Self::Breaking,
            "broken" => Self::Broken,
            _ => Self::Unknown,
        }
    }

    /// Whether the lease can be acquired by another client now.
    #[must_use]
    pub fn is_free(self) -> bool {
        matches!(self, Self::Available | Self::Expired | Self::Broken)
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Leased => "leased",
            Self::Expired => "expired",
            Self::Breaking => "breaking",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        })
    }
}

/// What the service says of one lock blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    pub(crate) key: String,
    pub(crate) state: LeaseState,
    pub(crate) infinite: bool,
    pub(crate) etag: String,
    pub(crate) last_modified: Option<SystemTime>,
    pub(crate) record: Record,
}

impl LeaseStatus {
    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The state of its lease.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state
    }

    /// Whether the lease is one without an end. Only told while it is leased.
    #[must_use]
    pub fn is_infinite(&self) -> bool {
        self.infinite
    }

    /// Who holds the lock, as far as that is known.
    ///
    /// `None` if it is free, and if its holder has not written who it is: it took the lock a moment
    /// ago, does not say, or is no program of this crate.
    ///
    /// The service does not tell one lease from the next. Where the holder before left without
    /// releasing, it is shown until the new one has written: for a moment, or all the time if that
    /// one does not say who it is.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.last_holder()
            .filter(|holder| !self.state.is_free() && !holder.released)
    }

    /// Who held the lock last, or holds it, of those who wrote who they are.
    ///
    /// If the lock is free and that holder has not [`released`](Holder::released), it left without
    /// releasing.
    #[must_use]
    pub fn last_holder(&self) -> Option<&Holder> {
        self.record.holder.as_ref()
    }

    /// The last fencing token that was handed out for this lock.
    #[must_use]
    pub fn fencing_token(&self) -> Option<i64> {
        self.record.fence
    }

    /// The blob's entity tag, quoted as in a header. Lease operations do not change it.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// When the blob's content or metadata was last written, to the second. Lease operations do
    /// not change it.
    #[must_use]
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified
    }
}

/// Reads the reply to Get Blob Properties.
pub(crate) fn read_status(key: &str, reply: &Reply) -> LeaseStatus {
    let header = |name| reply.header(name).unwrap_or_default();
    LeaseStatus {
        key: key.to_owned(),
        state: LeaseState::parse(header("x-ms-lease-state")),
        infinite: header("x-ms-lease-duration") == "infinite",
        etag: header("etag").to_owned(),
        last_modified: dates::parse_http(header("last-modified")).map(SystemTime::from),
        record: read_record(reply),
    }
}

/// Reads the metadata out of a reply's headers.
pub(crate) fn read_record(reply: &Reply) -> Record {
    let names = reply.headers.iter();
    Record::read(names.filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?, &**value))))
}

/// The most blobs that a page may have. The service sends 5000 at most.
const MAX_BLOBS: usize = 10_000;

/// One page of List Blobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<LeaseStatus>,
    pub(crate) next: Option<String>,
}

/// Reads the reply to List Blobs.
pub(crate) fn read_page(body: &[u8]) -> Result<Page, Error> {
    let unreadable = |what: String| Error::new(ErrorKind::Protocol, what);
    let text = std::str::from_utf8(body)
        .map_err(|_| unreadable("the list of blobs is not UTF-8".to_owned()))?;
    let document = xml::parse(text).map_err(|error| {
        unreadable("the list of blobs is not XML".to_owned()).with_source(error)
    })?;
    let root = document.root_element();
    if !root.has_tag_name("EnumerationResults") {
        return Err(unreadable(format!(
            "expected a list of blobs, got <{}>",
            root.tag_name().name()
        )));
    }
    let mut page = Page::default();
    for blob in elements(root, "Blobs").flat_map(|blobs| elements(blobs, "Blob")) {
        let properties = elements(blob, "Properties").next();
        if page.blobs.len() == MAX_BLOBS {
            return Err(unreadable(
                "the list has too many blobs for one page".to_owned(),
            ));
        }
        let property = |name| properties.map(|p| text_of(p, name)).unwrap_or_default();
        let etag = property("Etag");
        page.blobs.push(LeaseStatus {
            key: text_of(blob, "Name").into_owned(),
            state: LeaseState::parse(&property("LeaseState")),
            infinite: property("LeaseDuration") == "infinite",
            // Here the tag comes without its quotes.
            etag: if etag.starts_with('"') {
                etag.into_owned()
            } else {
                format!("\"{etag}\"")
            },
            last_modified: dates::parse_http(&property("Last-Modified")).map(SystemTime::from),
            record: read_listed_record(blob),
        });
    }
    page.next = Some(text_of(root, "NextMarker").into_owned()).filter(|next| !next.is_empty());
    Ok(page)
}

/// Reads the metadata out of an entry of a list.
fn read_listed_record(blob: roxmltree::Node<'_, '_>) -> Record {
    let values: Vec<_> = elements(blob, "Metadata")
        .flat_map(|metadata| metadata.children().filter(roxmltree::Node::is_element))
        .map(|value| (value.tag_name().name(), texts(value).collect::<String>()))
        .collect();
    Record::read(values.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Checks that a reply to acquire, renew or change speaks of the lease that was asked for.
pub(crate) fn read_lease_id(reply: &Reply) -> Result<LeaseId, Error> {
    reply
        .header("x-ms-lease-id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "the reply has no lease ID").with_reply(
                reply.status,
                None,
                reply.header("x-ms-request-id").map(str::to_owned),
                None,
            )
        })
}

/// Reads `x-ms-lease-time`, the seconds that a broken lease still runs.
pub(crate) fn read_lease_time(reply: &Reply) -> Duration {
    let secs = reply
        .header("x-ms-lease-time")
        .and_then(|secs| secs.parse().ok());
    Duration::from_secs(secs.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::tests::reply;

    #[test]
    fn status_is_read_from_the_headers() {
        let rows = [
            ("leased", "fixed", LeaseState::Leased, false),
            ("leased", "infinite", LeaseState::Leased, true),
            ("breaking", "", LeaseState::Breaking, false),
            ("broken", "", LeaseState::Broken, false),
            ("expired", "", LeaseState::Expired, false),
            ("available", "", LeaseState::Available, false),
            ("frozen", "", LeaseState::Unknown, false),
        ];
        for (text, duration, state, infinite) in rows {
            let headers = [
                ("x-ms-lease-state", text),
                ("x-ms-lease-duration", duration),
                ("etag", "\"0x8\""),
            ];
            let status = read_status("k", &reply(200, &headers, ""));
            assert_eq!((status.state(), status.is_infinite()), (state, infinite));
            assert_eq!((status.key(), status.etag()), ("k", "\"0x8\""));
        }
    }

    #[test]
    fn page_of_a_list_is_read() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
            ServiceEndpoint=\"https://a/\" ContainerName=\"locks\"><Blobs><Blob>\
            <Name>a&amp;b/ü &lt;c&gt;</Name><Properties><Last-Modified>Fri, 25 Oct 2019 18:13:24 GMT\
            </Last-Modified><Etag>0x8D7</Etag><LeaseStatus>locked</LeaseStatus><LeaseState>leased\
            </LeaseState><LeaseDuration>infinite</LeaseDuration></Properties><Metadata>\
            <AzmutexState>held</AzmutexState><azmutexowner>a%20b</azmutexowner>\
            <azmutexfence>7</azmutexfence></Metadata><OrMetadata /></Blob>\
            <Blob><Name>z</Name><Properties><LeaseState>available</LeaseState></Properties></Blob>\
            </Blobs><NextMarker>2!76!m</NextMarker></EnumerationResults>";
        let page = read_page(body.as_bytes()).unwrap();
        let first = &page.blobs[0];
        assert_eq!((first.key(), first.etag()), ("a&b/ü <c>", "\"0x8D7\""));
        assert_eq!(
            (first.state(), first.is_infinite()),
            (LeaseState::Leased, true)
        );
        assert_eq!(
            first.last_modified(),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_572_027_204))
        );
        assert_eq!(first.holder().and_then(Holder::owner), Some("a b"));
        assert_eq!(first.fencing_token(), Some(7));
        assert_eq!(page.blobs[1].state(), LeaseState::Available);
        assert_eq!(page.blobs[1].last_holder(), None);
        assert_eq!(page.next.as_deref(), Some("2!76!m"));
    }

    #[test]
    fn empty_page_has_no_next() {
        let body = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        assert_eq!(read_page(body.as_bytes()).unwrap(), Page::default());
    }

    #[test]
    fn list_that_is_none_is_an_error() {
        for (body, rule) in [
            ("", "not XML"),
            ("<html/>", "got <html>"),
            ("<a", "not XML"),
            ("\u{feff}", "not XML"),
        ] {
            let error = read_page(body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        assert!(
            read_page(&[0xff, 0xfe])
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }

    #[test]
    fn reply_without_a_lease_id_is_no_confirmation() {
        for headers in [&[][..], &[("x-ms-lease-id", "not a GUID")]] {
            let error = read_lease_id(&reply(200, headers, "")).unwrap_err();
            assert!(error.is_transient() && error.is_ambiguous());
        }
    }
}
