//! One method per operation of the service: make the request, authorize it, send it, read the
//! answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;

use super::credential::Credential;
use super::errors::read_error;
use super::requests;
use super::status::{self, LeaseStatus, Page};
use crate::error::LossReason;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Record;
use crate::http::agent::{MAX_PAGE, Transport};
use crate::http::message::{Reply, Request};
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::time::clock::Clock;
use crate::time::dates;

/// The most that a lock blob may hold as the value that it guards.
pub(crate) const MAX_CONTENT: usize = 4 * 1024 * 1024;

/// A client of one container.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    credential: Credential,
    clock: Clock,
    account: String,
    /// The endpoint's own path: empty, or such as `/devstoreaccount1`.
    base: String,
    container: String,
    /// What all of this client's request IDs begin with.
    nonce: u64,
    requests: AtomicU64,
}

impl Client {
    pub(crate) fn new(
        transport: Transport,
        credential: Credential,
        clock: Clock,
        account: String,
        base: String,
        container: String,
        nonce: u64,
    ) -> Self {
        let requests = AtomicU64::new(0);
        Self {
            transport,
            credential,
            clock,
            account,
            base,
            container,
            nonce,
            requests,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    pub(crate) fn url(&self, key: &str) -> String {
        format!("{}{}", self.transport.origin(), self.path(key))
    }

    /// The blob as errors and logs name it: account, container and key.
    pub(crate) fn target(&self, key: &str) -> String {
        format!("{}/{}/{key}", self.account, self.container)
    }

    /// Acquires with the proposed `id`. Returns the blob's ETag.
    pub(crate) fn acquire(
        &self,
        key: &str,
        id: LeaseId,
        duration: LeaseDuration,
        timeout: Duration,
    ) -> Result<String, Error> {
        let request = requests::acquire(&self.path(key), id, duration);
        let reply = self.call(request, None, timeout).and_then(|reply| {
            if status::read_lease_id(&reply)? == id {
                return Ok(reply);
            }
            // Neither granted nor refused: ask again.
            Err(Error::new(
                ErrorKind::Protocol,
                "the reply names another lease ID",
            ))
        });
        reply.map(|reply| etag(&reply)).map_err(|error| {
            // Another ID than the one held: somebody else holds it.
            let error = match error.service_code() {
                Some("LeaseIdMismatchWithLeaseOperation") => error.into_busy(),
                _ => error,
            };
            error.during("acquire lease on", &self.target(key))
        })
    }

    /// Renews. A reply that names another ID is a loss, not a success.
    pub(crate) fn renew(&self, key: &str, id: LeaseId, timeout: Duration) -> Result<(), Error> {
        self.expect_id(requests::renew(&self.path(key), id), id, timeout)
            .map_err(|error| held(error).during("renew lease on", &self.target(key)))
    }

    pub(crate) fn change(
        &self,
        key: &str,
        id: LeaseId,
        proposed: LeaseId,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.expect_id(
            requests::change(&self.path(key), id, proposed),
            proposed,
            timeout,
        )
        .map_err(|error| held(error).during("change lease on", &self.target(key)))
    }

    pub(crate) fn release(&self, key: &str, id: LeaseId, timeout: Duration) -> Result<(), Error> {
        self.call(requests::release(&self.path(key), id), None, timeout)
            .map(drop)
            .map_err(|error| held(error).during("release lease on", &self.target(key)))
    }

    /// Breaks whatever lease there is, on a blob with this ETag if there is one. Returns how long
    /// it still runs.
    pub(crate) fn break_lease(
        &self,
        key: &str,
        period: Option<String>,
        if_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Duration, Error> {
        let request = requests::break_lease(&self.path(key), period, if_match);
        self.call(request, None, timeout)
            .map(|reply| status::read_lease_time(&reply))
            .map_err(|error| match (error.kind(), error.service_code()) {
                (ErrorKind::LeaseLost, _) => error.into_no_lease(),
                (_, Some("ConditionNotMet")) if if_match.is_some() => {
                    error.into_changed("somebody wrote to the blob, such as a new holder")
                }
                _ => error,
            })
            .map_err(|error| error.during("break lease on", &self.target(key)))
    }

    pub(crate) fn status(&self, key: &str, timeout: Duration) -> Result<LeaseStatus, Error> {
        self.call(
            requests::get_properties(&self.path(key), None),
            None,
            timeout,
        )
        .map(|reply| status::read_status(key, &reply))
        .map_err(|error| error.during("read the status of", &self.target(key)))
    }

    /// What the service's clock says, to the second, whatever else the reply says.
    pub(crate) fn service_time(&self, timeout: Duration) -> Result<OffsetDateTime, Error> {
        let request = requests::list_blobs(&self.container_path(), "azmutex-", None);
        self.exchange(request, Some(MAX_PAGE), timeout)
            .and_then(|(reply, _)| {
                let date = reply.header("date").and_then(dates::parse_http);
                date.ok_or_else(|| Error::new(ErrorKind::Protocol, "the reply has no date"))
            })
            .map_err(|error| error.during("ask for the time of", &self.target("")))
    }

    /// Reads the blob's ETag and metadata, if `id` holds its lease.
    pub(crate) fn read_record(
        &self,
        key: &str,
        id: LeaseId,
        timeout: Duration,
    ) -> Result<(String, Record), Error> {
        self.call(
            requests::get_properties(&self.path(key), Some(id)),
            None,
            timeout,
        )
        .map(|reply| (etag(&reply), status::read_record(&reply)))
        .map_err(|error| held(error).during("read the metadata of", &self.target(key)))
    }

    /// Replaces the blob's metadata, if `id` holds its lease. Returns the new ETag.
    pub(crate) fn write_record(
        &self,
        key: &str,
        id: LeaseId,
        record: &Record,
        if_match: Option<&str>,
        timeout: Duration,
    ) -> Result<String, Error> {
        self.call(
            requests::set_metadata(&self.path(key), id, record, if_match),
            None,
            timeout,
        )
        .map(|reply| etag(&reply))
        .map_err(|error| held(error).during("write the metadata of", &self.target(key)))
    }

    /// Reads the blob's content, if `id` holds its lease.
    pub(crate) fn read_content(
        &self,
        key: &str,
        id: LeaseId,
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let limit = Some(MAX_CONTENT as u64);
        self.call(requests::get_content(&self.path(key), id), limit, timeout)
            .map(|reply| reply.body)
            .map_err(|error| held(error).during("read the content of", &self.target(key)))
    }

    /// Replaces the blob's content and metadata, if `id` holds its lease and the blob is still the
    /// one with the ETag `if_match`. Returns the new ETag.
    pub(crate) fn write_content(
        &self,
        key: &str,
        id: LeaseId,
        record: &Record,
        content: &[u8],
        if_match: &str,
        timeout: Duration,
    ) -> Result<String, Error> {
        self.call(
            requests::put_content(&self.path(key), id, record, content, if_match),
            None,
            timeout,
        )
        .map(|reply| etag(&reply))
        .map_err(|error| held(error).during("write the content of", &self.target(key)))
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        marker: Option<&str>,
        timeout: Duration,
    ) -> Result<Page, Error> {
        let request = requests::list_blobs(&self.container_path(), prefix, marker);
        self.call(request, Some(MAX_PAGE), timeout)
            // It came whole, so asking again would not make it readable.
            .and_then(|reply| status::read_page(&reply.body).map_err(Error::permanent))
            .map_err(|error| error.during("list", &self.target(prefix)))
    }

    /// Creates the container unless it exists.
    pub(crate) fn create_container(&self, timeout: Duration) -> Result<(), Error> {
        let result = self.call(
            requests::create_container(&self.container_path()),
            None,
            timeout,
        );
        match result {
            Err(error) if error.service_code() == Some("ContainerAlreadyExists") => Ok(()),
            result => result.map(drop).map_err(|error| {
                error.during(
                    "create container",
                    &format!("{}/{}", self.account, self.container),
                )
            }),
        }
    }

    /// Creates the blob, empty, unless it exists. Returns its ETag if it was created.
    pub(crate) fn create_blob(
        &self,
        key: &str,
        timeout: Duration,
    ) -> Result<Option<String>, Error> {
        let result = self.call(requests::create_blob(&self.path(key)), None, timeout);
        match result {
            Err(error)
                if matches!(
                    error.service_code(),
                    Some("BlobAlreadyExists" | "LeaseIdMissing" | "ConditionNotMet")
                ) =>
            {
                Ok(None)
            }
            result => result
                .map(|reply| Some(etag(&reply)))
                .map_err(|error| error.during("create lock blob", &self.target(key))),
        }
    }

    fn path(&self, key: &str) -> String {
        requests::blob_path(&self.base, &self.container, key)
    }

    fn container_path(&self) -> String {
        format!("{}/{}", self.base, self.container)
    }

    fn expect_id(&self, request: Request<'_>, id: LeaseId, timeout: Duration) -> Result<(), Error> {
        let reply = self.call(request, None, timeout)?;
        if status::read_lease_id(&reply)? == id {
            Ok(())
        } else {
            Err(Error::lost(LossReason::Taken))
        }
    }

    /// Sends one request and returns the reply if it is a success.
    fn call(
        &self,
        request: Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let (reply, now) = self.exchange(request, max_body, timeout)?;
        match reply.status {
            200..=299 => Ok(reply),
            300..=399 => Err(Error::new(
                ErrorKind::Protocol,
                "the reply is a redirect, and credentials do not follow one; check the endpoint",
            )
            .permanent()),
            400..=599 => Err(read_error(&reply, now, &self.credential.hint(now))),
            status => Err(Error::new(
                ErrorKind::Protocol,
                format!("status {status} in the reply"),
            )),
        }
    }

    /// Sends one request and returns whatever is replied, and the wall clock before.
    fn exchange(
        &self,
        mut request: Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<(Reply, OffsetDateTime), Error> {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{:016x}-{count}", self.nonce);
        request
            .headers
            .push(("x-ms-client-request-id".into(), request_id.clone()));
        let now = self.clock.wall();
        self.credential.authorize(&mut request, &self.account, now);
        let reply = self.transport.send(&request, max_body, timeout)?;
        if reply
            .header("x-ms-client-request-id")
            .is_some_and(|echoed| echoed != request_id)
        {
            self.transport.reconnect();
            return Err(Error::transport(
                "the reply belongs to another request",
                None,
            ));
        }
        Ok((reply, now))
    }
}

/// To the holder of a lease ID, a missing blob is a lost lease.
fn held(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.into_loss(LossReason::Deleted),
        _ => error,
    }
}

fn etag(reply: &Reply) -> String {
    reply.header("etag").unwrap_or_default().to_owned()
}
