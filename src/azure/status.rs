//! PURE: the status of a lease and its lock blob, as read from the service's replies.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::requests::METADATA;
use super::xml::{self, elements, text_of, texts};
use crate::error::{Error, ErrorKind};
use crate::holder::record::{Done, Holder, PERMITS, Record};
use crate::holder::terraform;
use crate::http::message::Reply;
use crate::lease::ids::LeaseId;
use crate::time::dates;

/// The state of a lease, as the service reports it.
///
/// Until somebody acquires the lease again, it also shows how the last one ended, whoever held it:
/// it was released (`Available`), ran out (`Expired`) or was broken (`Broken`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseState {
    /// Nobody holds the lease: its last holder released it, or it was never acquired.
    Available,
    /// Somebody holds the lease.
    Leased,
    /// Nobody holds the lease: it ran out, because its last holder neither renewed nor released it.
    Expired,
    /// The lease was broken, but lasts until the end of the break period.
    Breaking,
    /// Nobody holds the lease: it was broken.
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

    /// Whether another client can acquire the lease now.
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

/// The state of one lock, and what is recorded about its holders. Read by
/// [`AzureMutex::status`](crate::AzureMutex::status) and [`list`](crate::AzureMutex::list).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    key: String,
    state: LeaseState,
    /// Whether the lease is infinite. Known only while it is leased.
    infinite: Option<bool>,
    etag: String,
    last_modified: Option<SystemTime>,
    pub(crate) record: Record,
    /// The holder that Terraform recorded.
    terraform: Option<Holder>,
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

    /// Whether the lease is infinite. Known only while it is leased; otherwise false.
    #[must_use]
    pub fn is_infinite(&self) -> bool {
        self.infinite == Some(true)
    }

    /// Who holds the lock, if known.
    ///
    /// Terraform's locks are recognised too; the [`reason`](Holder::reason) is then the operation.
    ///
    /// `None` if the lock is free, or if its holder has not written who it is: because it took the
    /// lock a moment ago, has holder information turned off, or uses another library. A record that
    /// contradicts the lease belongs to an earlier holder and is ignored: one that is marked as
    /// released, or that has a finite lease while the service reports an infinite one, or the
    /// reverse.
    ///
    /// The service does not distinguish one lease from the next. If its record does not contradict
    /// the lease, an earlier holder is shown until the new one has written who it is; if that one
    /// never does, for as long as it holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        let ours = self.record.holder.as_ref();
        let ours = ours.filter(|holder| !holder.released && self.may_have_lease(holder.lease));
        let infinite = self.state == LeaseState::Leased && self.is_infinite();
        let terraform = self.terraform.as_ref().filter(|_| infinite);
        later(ours, terraform)
    }

    /// The current holder, or the last one that wrote who it was.
    ///
    /// If the lock is free, [`state`](Self::state) tells whether the last lease was released, ran
    /// out or was broken. That lease may have belonged to a later holder that wrote nothing.
    #[must_use]
    pub fn last_holder(&self) -> Option<&Holder> {
        self.holder()
            .or_else(|| later(self.record.holder.as_ref(), self.terraform.as_ref()))
    }

    /// Whether the lease may have this duration; `None` is infinite.
    fn may_have_lease(&self, duration: Option<Duration>) -> bool {
        match self.state {
            LeaseState::Leased => self
                .infinite
                .is_none_or(|infinite| infinite == duration.is_none()),
            state => !state.is_free(),
        }
    }

    /// The last fencing token that was handed out for this lock.
    #[must_use]
    pub fn fencing_token(&self) -> Option<i64> {
        self.record.fence
    }

    /// That the work which is to be done once was done. See [`Locker::once`](crate::Locker::once).
    #[must_use]
    pub fn done(&self) -> Option<&Done> {
        self.record.done.as_ref()
    }

    /// How many permits the [`Semaphore`](crate::Semaphore) with this key has. `None` if there is none.
    /// The permits themselves have keys of their own.
    #[must_use]
    pub fn permits(&self) -> Option<u32> {
        self.record.other(PERMITS)?.parse().ok()
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

/// Of two records, the one whose holder took the lock later.
fn later<'a>(ours: Option<&'a Holder>, terraform: Option<&'a Holder>) -> Option<&'a Holder> {
    match (ours, terraform) {
        (Some(ours), Some(terraform)) if ours.since >= terraform.since => Some(ours),
        (ours, terraform) => terraform.or(ours),
    }
}

/// Reads the reply to Get Blob Properties.
pub(crate) fn read_status(key: &str, reply: &Reply) -> LeaseStatus {
    let header = |name| reply.header(name).unwrap_or_default();
    let record = read_record(reply);
    LeaseStatus {
        key: key.to_owned(),
        state: LeaseState::parse(header("x-ms-lease-state")),
        infinite: read_infinite(header("x-ms-lease-duration")),
        etag: header("etag").to_owned(),
        last_modified: read_date(header("last-modified")),
        terraform: read_terraform(&record),
        record,
    }
}

fn read_infinite(duration: &str) -> Option<bool> {
    match duration {
        "infinite" => Some(true),
        "fixed" => Some(false),
        _ => None,
    }
}

fn read_date(text: &str) -> Option<SystemTime> {
    dates::parse_http(text).and_then(dates::to_system)
}

fn read_terraform(record: &Record) -> Option<Holder> {
    record.other(terraform::NAME).and_then(terraform::read)
}

/// Reads the metadata out of a reply's headers.
pub(crate) fn read_record(reply: &Reply) -> Record {
    let names = reply.headers.iter();
    Record::read(names.filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?, &**value))))
}

/// The most blobs that a page may have. The service sends at most 5000.
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
        let record = read_listed_record(blob);
        // With a hierarchical namespace, directories are listed like blobs.
        let is_directory = |value: &str| value.eq_ignore_ascii_case("true");
        if property("ResourceType") == "directory"
            || record.other("hdi_isfolder").is_some_and(is_directory)
        {
            continue;
        }
        let etag = property("Etag");
        page.blobs.push(LeaseStatus {
            key: text_of(blob, "Name").into_owned(),
            state: LeaseState::parse(&property("LeaseState")),
            infinite: read_infinite(&property("LeaseDuration")),
            // Here the tag comes without its quotes.
            etag: if etag.starts_with('"') {
                etag.into_owned()
            } else {
                format!("\"{etag}\"")
            },
            last_modified: read_date(&property("Last-Modified")),
            terraform: read_terraform(&record),
            record,
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

/// Reads which lease a reply to acquire, renew or change is about.
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

/// Reads `x-ms-lease-time`: the seconds until a lease that is being broken ends.
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

    /// A blob with a lease in this state, and metadata.
    fn status(state: &str, duration: &str, metadata: &[(&str, &str)]) -> LeaseStatus {
        let names: Vec<_> = metadata
            .iter()
            .map(|(name, value)| (format!("{METADATA}{name}"), *value))
            .collect();
        let mut headers = vec![
            ("x-ms-lease-state", state),
            ("x-ms-lease-duration", duration),
        ];
        headers.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
        read_status("k", &reply(200, &headers, ""))
    }

    fn owners(status: &LeaseStatus) -> (Option<&str>, Option<&str>) {
        (
            status.holder().and_then(Holder::owner),
            status.last_holder().and_then(Holder::owner),
        )
    }

    #[test]
    fn record_that_contradicts_the_lease_is_not_its_holders() {
        let finite = [
            ("azmutexstate", "held"),
            ("azmutexowner", "a"),
            ("azmutexlease", "15"),
        ];
        let infinite = [("azmutexstate", "held"), ("azmutexowner", "a")];
        let released = [("azmutexstate", "released"), ("azmutexowner", "a")];
        let (known, unknown) = ((Some("a"), Some("a")), (None, Some("a")));
        let rows = [
            ("leased", "fixed", &finite[..], known),
            ("leased", "infinite", &finite, unknown),
            ("leased", "fixed", &infinite, unknown),
            ("leased", "infinite", &infinite, known),
            ("leased", "", &infinite, known),
            ("leased", "infinite", &released, unknown),
            ("leased", "fixed", &released, unknown),
            ("breaking", "", &finite, known),
            ("breaking", "", &infinite, known),
            ("breaking", "", &released, unknown),
            ("available", "", &infinite, unknown),
            ("expired", "", &finite, unknown),
            ("broken", "", &finite, unknown),
        ];
        for (state, duration, metadata, wanted) in rows {
            let status = status(state, duration, metadata);
            assert_eq!(owners(&status), wanted, "{state} {duration} {metadata:?}");
        }
    }

    #[test]
    fn lock_of_terraform_is_shown_while_its_lease_is_infinite() {
        // {"ID":"1","Operation":"OperationTypeApply","Who":"bob@ws","Created":"2026-01-07T10:02:11.5Z"}
        let lock = "eyJJRCI6IjEiLCJPcGVyYXRpb24iOiJPcGVyYXRpb25UeXBlQXBwbHkiLCJXaG8iOiJib2JAd3MiLCJDcmVhdGVkIjoiMjAyNi0wMS0wN1QxMDowMjoxMS41WiJ9";
        let theirs = [("TerraformLockID", lock)];
        let rows = [
            ("leased", "infinite", Some("bob@ws")),
            ("leased", "fixed", None),
            ("breaking", "", None),
            ("available", "", None),
            ("broken", "", None),
        ];
        for (state, duration, wanted) in rows {
            let status = status(state, duration, &theirs);
            assert_eq!(owners(&status), (wanted, Some("bob@ws")), "{state}");
        }
        // Of a lock that was ours before or is since, the later record counts.
        for (since, wanted) in [
            ("2026-01-07T10:02:10Z", "bob@ws"),
            ("2026-01-07T10:02:12Z", "a"),
        ] {
            let both = [
                ("azmutexstate", "held"),
                ("azmutexowner", "a"),
                ("azmutexsince", since),
                theirs[0],
            ];
            let status = status("leased", "infinite", &both);
            assert_eq!(owners(&status), (Some(wanted), Some(wanted)));
        }
    }

    #[test]
    fn dates_that_no_system_can_tell_are_none() {
        for (date, told) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", true),
            ("Mon, 01 Jan 0001 00:00:00 GMT", !cfg!(windows)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", true),
            ("Fri, 31 Dec 99999 23:59:59 GMT", false),
        ] {
            let status = read_status("k", &reply(200, &[("last-modified", date)], ""));
            assert_eq!(status.last_modified().is_some(), told, "{date}");
        }
        let status = status(
            "leased",
            "fixed",
            &[
                ("azmutexstate", "held"),
                ("azmutexsince", "0001-01-01T00:00:00Z"),
            ],
        );
        assert_eq!(status.last_holder().and_then(Holder::since), None);
    }

    #[test]
    fn directories_are_not_listed() {
        let blob = |name: &str, properties: &str, metadata: &str| {
            format!(
                "<Blob><Name>{name}</Name><Properties>{properties}</Properties>\
                 <Metadata>{metadata}</Metadata></Blob>"
            )
        };
        let body = [
            "<EnumerationResults><Blobs>",
            &blob("a", "<ResourceType>directory</ResourceType>", ""),
            &blob("a/b", "", "<hdi_isfolder>true</hdi_isfolder>"),
            &blob("a/c", "", "<Hdi_IsFolder>True</Hdi_IsFolder>"),
            &blob("a/d", "<ResourceType>file</ResourceType>", ""),
            &blob("a/e", "", "<hdi_isfolder>false</hdi_isfolder>"),
            "</Blobs></EnumerationResults>",
        ];
        let page = read_page(body.concat().as_bytes()).unwrap();
        let keys: Vec<_> = page.blobs.iter().map(LeaseStatus::key).collect();
        assert_eq!(keys, ["a/d", "a/e"]);
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
