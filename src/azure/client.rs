//! One method per operation of the service: make the request, authorize it, send it, read the
//! answer.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;

use super::credential::Credential;
use super::errors::{self, Used, check_is_service, read_error};
use super::requests;
use super::status::{self, LeaseStatus, Page};
use crate::entra::cache::{KeepFresh, Token, TokenCache};
use crate::entra::identity::TokenIdentity;
use crate::error::{Error, ErrorKind, LossReason, Phase};
use crate::holder::record::Record;
use crate::http::agent::{MAX_PAGE, Transport};
use crate::http::message::{Reply, Request};
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::time::clock::Clock;
use crate::time::dates;

/// The largest guarded value of a lock blob, in bytes.
pub(crate) const MAX_CONTENT: usize = 4 * 1024 * 1024;

/// What a request keeps of its time if it has to wait for a token.
const FOR_REQUEST: Duration = Duration::from_secs(1);

/// A client of one container.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    credential: Credential,
    /// The access tokens that go with requests, if the credential is for tokens.
    tokens: Option<Arc<TokenCache>>,
    clock: Clock,
    account: String,
    /// The endpoint's own path: empty, or such as `/devstoreaccount1`.
    base: String,
    container: String,
    /// The prefix of this client's request IDs.
    nonce: u64,
    requests: AtomicU64,
    /// The service's time at the start of the clock, in nanoseconds since 1970, as its last reply
    /// says; `UNKNOWN` before.
    service_start: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl Client {
    pub(crate) fn new(
        transport: Transport,
        credential: Credential,
        clock: Clock,
        account: String,
        base: String,
        container: String,
        nonce: u64,
    ) -> Result<Self, Error> {
        let requests = AtomicU64::new(0);
        let source = {
            let (host, _) = transport.host().rsplit_once(':').unwrap_or_default();
            credential.token_source(host)?
        };
        Ok(Self {
            tokens: source.map(|from| TokenCache::new(from.source, from.audience, clock.clone())),
            transport,
            credential,
            clock,
            account,
            base,
            container,
            nonce,
            requests,
            service_start: AtomicI64::new(UNKNOWN),
        })
    }

    /// Replaces access tokens ahead of time for as long as the returned value exists.
    pub(crate) fn keep_token_fresh(&self) -> Option<KeepFresh> {
        self.tokens.as_ref().map(TokenCache::keep_fresh)
    }

    /// Whose access token goes with requests.
    pub(crate) fn token_identity(&self, timeout: Duration) -> Result<Option<TokenIdentity>, Error> {
        let token = self.tokens.as_ref().map(|tokens| tokens.wait(timeout));
        let token = token.transpose()?;
        Ok(token.map(|token| (*token.identity).clone()))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time by the service's clock, as its last reply says, and up to two seconds behind. `None`
    /// before the first reply.
    pub(crate) fn service_now(&self) -> Option<OffsetDateTime> {
        let start = self.service_start.load(Ordering::Relaxed);
        let passed = i128::from(self.clock.now().as_nanos());
        (start != UNKNOWN)
            .then(|| OffsetDateTime::from_unix_timestamp_nanos(i128::from(start) + passed).ok())?
    }

    fn heed_date(&self, reply: &Reply) {
        if let Some(date) = reply.header("date").and_then(dates::parse_http) {
            let passed = i128::from(self.clock.now().as_nanos());
            let start = i64::try_from(date.unix_timestamp_nanos() - passed);
            self.service_start
                .store(start.unwrap_or(UNKNOWN), Ordering::Relaxed);
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
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
        self.call(request, None, timeout)
            .and_then(|(reply, etag)| {
                if status::read_lease_id(&reply)? == id {
                    return Ok(etag);
                }
                // Neither granted nor refused: ask again.
                Err(Error::new(
                    ErrorKind::Protocol,
                    "the reply has another lease ID",
                ))
            })
            .map_err(|error| match error.service_code() {
                // Another ID than the one proposed: somebody else holds it.
                Some("LeaseIdMismatchWithLeaseOperation") => error.into_busy(),
                _ => error,
            })
            .map_err(|error| self.failed_to("acquire lease on", key, error))
    }

    /// Renews. A reply with another ID is a loss, not a success.
    ///
    /// `with_token_in_hand`: whether it fails at once if there is no access token, instead of waiting
    /// for one.
    pub(crate) fn renew(
        &self,
        key: &str,
        id: LeaseId,
        with_token_in_hand: bool,
        timeout: Duration,
    ) -> Result<(), Error> {
        let mut request = requests::renew(&self.path(key), id);
        request.with_token_in_hand = with_token_in_hand;
        self.expect_id(request, id, timeout)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("renew lease on", key, error))
    }

    pub(crate) fn change(
        &self,
        key: &str,
        id: LeaseId,
        proposed: LeaseId,
        timeout: Duration,
    ) -> Result<(), Error> {
        let request = requests::change(&self.path(key), id, proposed);
        self.expect_id(request, proposed, timeout)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("change lease on", key, error))
    }

    pub(crate) fn release(&self, key: &str, id: LeaseId, timeout: Duration) -> Result<(), Error> {
        self.call(requests::release(&self.path(key), id), None, timeout)
            .map(drop)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("release lease on", key, error))
    }

    /// Breaks the current lease; with `if_match`, only if the blob still has that ETag. Returns how
    /// long the lease still runs.
    ///
    /// Sent on a new connection: a break must not be repeated if it may have been done, since by
    /// then another client may hold the lease.
    pub(crate) fn break_lease(
        &self,
        key: &str,
        period: Option<String>,
        if_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Duration, Error> {
        let request = requests::break_lease(&self.path(key), period, if_match);
        self.call(request, None, timeout)
            .map(|(reply, _)| status::read_lease_time(&reply))
            .map_err(|error| match (error.kind(), error.service_code()) {
                (ErrorKind::LeaseLost, _) => error.into_no_lease(),
                (_, Some("ConditionNotMet")) if if_match.is_some() => error.into_changed(
                    "somebody has written to the blob since, perhaps a new \
                                        holder",
                ),
                _ => error,
            })
            .map_err(|error| self.failed_to("break lease on", key, error))
    }

    pub(crate) fn status(&self, key: &str, timeout: Duration) -> Result<LeaseStatus, Error> {
        let request = requests::get_properties(&self.path(key), None);
        self.call(request, None, timeout)
            .map(|(reply, _)| status::read_status(key, &reply))
            .map_err(|error| self.failed_to("read the status of", key, error))
    }

    /// The service's clock, to the second, even if the reply is an error.
    pub(crate) fn service_time(&self, timeout: Duration) -> Result<OffsetDateTime, Error> {
        let request = requests::list_blobs(&self.container_path(), "azmutex-", None);
        self.exchange(request, Some(MAX_PAGE), timeout)
            .and_then(|Exchanged { reply, .. }| {
                let date = reply.header("date").and_then(dates::parse_http);
                date.ok_or_else(|| Error::new(ErrorKind::Protocol, "the reply has no date"))
            })
            .map_err(|error| self.failed_to("ask for the time of", "", error))
    }

    /// Reads the blob's ETag and metadata, if `id` holds its lease.
    pub(crate) fn read_record(
        &self,
        key: &str,
        id: LeaseId,
        timeout: Duration,
    ) -> Result<(String, Record), Error> {
        let request = requests::get_properties(&self.path(key), Some(id));
        self.call(request, None, timeout)
            .map(|(reply, etag)| (etag, status::read_record(&reply)))
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("read the metadata of", key, error))
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
        let request = requests::set_metadata(&self.path(key), Some(id), record, if_match);
        self.call(request, None, timeout)
            .map(|(_, etag)| etag)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("write the metadata of", key, error))
    }

    /// Replaces the metadata of a blob that nobody leases, if it is still the one with the ETag
    /// `if_match`.
    pub(crate) fn write_unleased(
        &self,
        key: &str,
        record: &Record,
        if_match: &str,
        timeout: Duration,
    ) -> Result<(), Error> {
        let request = requests::set_metadata(&self.path(key), None, record, Some(if_match));
        self.call(request, None, timeout)
            .map(drop)
            .map_err(|error| self.failed_to("write the metadata of", key, error))
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
            .map(|(reply, _)| reply.body)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("read the content of", key, error))
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
        let request = requests::put_content(&self.path(key), id, record, content, if_match);
        self.call(request, None, timeout)
            .map(|(_, etag)| etag)
            .map_err(missing_means_lost)
            .map_err(|error| self.failed_to("write the content of", key, error))
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        marker: Option<&str>,
        timeout: Duration,
    ) -> Result<Page, Error> {
        let request = requests::list_blobs(&self.container_path(), prefix, marker);
        self.succeed(request, Some(MAX_PAGE), timeout)
            // It arrived complete, so asking again would not make it readable.
            .and_then(|reply| status::read_page(&reply.body).map_err(Error::permanent))
            .map_err(|error| self.failed_to("list", prefix, error))
    }

    /// Creates the container unless it exists.
    pub(crate) fn create_container(&self, timeout: Duration) -> Result<(), Error> {
        let request = requests::create_container(&self.container_path());
        match self.call(request, None, timeout) {
            Err(error) if error.service_code() == Some("ContainerAlreadyExists") => Ok(()),
            result => result.map(drop).map_err(|error| {
                let target = format!("{}/{}", self.account, self.container);
                let is_role = error.service_code() == Some("AuthorizationPermissionMismatch");
                let error = if is_role && self.tokens.is_some() {
                    error.with_advice(
                        "to create a container it needs the role on the account, so create the \
                         container beforehand",
                    )
                } else {
                    error
                };
                error
                    .with_host(self.transport.host())
                    .during("create container", &target)
            }),
        }
    }

    /// Creates the blob, empty, unless it exists. Returns its ETag if it was created.
    pub(crate) fn create_blob(
        &self,
        key: &str,
        timeout: Duration,
    ) -> Result<Option<String>, Error> {
        let request = requests::create_blob(&self.path(key));
        match self.call(request, None, timeout) {
            Err(error)
                if matches!(
                    error.service_code(),
                    Some("BlobAlreadyExists" | "LeaseIdMissing" | "ConditionNotMet")
                ) =>
            {
                Ok(None)
            }
            result => result
                .map(|(_, etag)| Some(etag))
                .map_err(|error| self.failed_to("create lock blob", key, error)),
        }
    }

    fn path(&self, key: &str) -> String {
        requests::blob_path(&self.base, &self.container, key)
    }

    fn container_path(&self) -> String {
        format!("{}/{}", self.base, self.container)
    }

    /// Adds the operation, the blob and the host to `error`.
    fn failed_to(&self, verb: &'static str, key: &str, error: Error) -> Error {
        error
            .with_host(self.transport.host())
            .during(verb, &self.target(key))
    }

    fn expect_id(&self, request: Request<'_>, id: LeaseId, timeout: Duration) -> Result<(), Error> {
        let (reply, _) = self.call(request, None, timeout)?;
        if status::read_lease_id(&reply)? == id {
            Ok(())
        } else {
            Err(Error::lost(LossReason::Taken))
        }
    }

    /// Sends one request about a blob or a container and returns the reply and its ETag if it is a
    /// success. A success without an ETag confirms nothing: the service always sends one.
    fn call(
        &self,
        request: Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<(Reply, String), Error> {
        let reply = self.succeed(request, max_body, timeout)?;
        match reply.header("etag").unwrap_or_default() {
            "" => Err(missing_header("ETag", &reply)),
            etag => {
                let etag = etag.to_owned();
                Ok((reply, etag))
            }
        }
    }

    /// Sends one request and returns the reply if it is a success.
    fn succeed(
        &self,
        request: Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        self.credential.check_allows(&request)?;
        let Exchanged { reply, sent, token } = self.exchange(request, max_body, timeout)?;
        match reply.status {
            200..=299 => Ok(reply),
            400..=599 => {
                let used = Used {
                    hint: self.credential.hint(sent),
                    identity: token.as_ref().map(|token| &*token.identity),
                };
                Err(read_error(&reply, sent, &used))
            }
            300..=399 => {
                let text = "the reply is a redirect, which is not followed, to protect the \
                            credential";
                let error = Error::new(ErrorKind::Protocol, text);
                Err(error.with_reply(reply.status, None, None, None).permanent())
            }
            status => Err(Error::new(
                ErrorKind::Protocol,
                format!("the reply's status {status} is not an HTTP status"),
            )),
        }
    }

    /// Sends one request and returns whatever the service replies.
    ///
    /// If the service refuses the access token, the request is sent a second time with a new one,
    /// unless it must not wait for that.
    fn exchange(
        &self,
        mut request: Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Exchanged, Error> {
        let Some(tokens) = &self.tokens else {
            return self.send(&mut request, max_body, None, timeout);
        };
        let started = self.clock.moment().real;
        // What is left of the time; for a token, all but what the request itself takes.
        let left = || timeout.saturating_sub(self.clock.moment().real.since(started));
        let for_token = || left().saturating_sub(FOR_REQUEST.min(timeout / 2));
        let token = if request.with_token_in_hand {
            tokens.in_hand()?
        } else {
            tokens.wait(for_token())?
        };
        let exchanged = self.send(&mut request, max_body, Some(token.clone()), left())?;
        if !errors::is_token_refused(&exchanged.reply) {
            return Ok(exchanged);
        }
        tokens.refused(&token, errors::demanded_claims(&exchanged.reply));
        if request.with_token_in_hand {
            return Ok(exchanged);
        }
        let next = tokens.wait(for_token())?;
        if next.is_same(&token) {
            return Ok(exchanged);
        }
        let exchanged = self.send(&mut request, max_body, Some(next.clone()), left())?;
        if errors::is_token_refused(&exchanged.reply) {
            tokens.refused(&next, errors::demanded_claims(&exchanged.reply));
        }
        Ok(exchanged)
    }

    /// Authorizes one request and sends it once.
    fn send(
        &self,
        request: &mut Request<'_>,
        max_body: Option<u64>,
        token: Option<Token>,
        timeout: Duration,
    ) -> Result<Exchanged, Error> {
        // A forked child has the same nonce and count as its parent, but not the same process ID.
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{:016x}-{}-{count}", self.nonce, process::id());
        let own_headers = request.headers.len();
        request
            .headers
            .push(("x-ms-client-request-id".into(), request_id.clone()));
        let sent = self.clock.wall();
        let access = token.as_ref().map(|token| &*token.access);
        self.credential
            .authorize(request, &self.account, sent, access);
        let reply = self.transport.send(request, max_body, timeout);
        request.headers.truncate(own_headers);
        let reply = reply?;
        if reply
            .header("x-ms-client-request-id")
            .is_some_and(|echoed| echoed != request_id)
        {
            self.transport.reconnect();
            let text = "the reply belongs to another request";
            return Err(Error::transport(text, Phase::Reply));
        }
        check_is_service(&reply, sent)?;
        self.heed_date(&reply);
        Ok(Exchanged { reply, sent, token })
    }
}

/// A request's reply, the wall-clock time before it was sent, and the token that it carried.
struct Exchanged {
    reply: Reply,
    sent: OffsetDateTime,
    token: Option<Token>,
}

/// For the holder of a lease ID, a missing blob is a lost lease.
fn missing_means_lost(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.into_loss(LossReason::Deleted),
        _ => error,
    }
}

/// A success without a header that the service always sends.
fn missing_header(header: &str, reply: &Reply) -> Error {
    let request_id = reply.header("x-ms-request-id").map(str::to_owned);
    Error::new(ErrorKind::Protocol, format!("the reply has no {header}")).with_reply(
        reply.status,
        None,
        request_id,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Delivery;
    use crate::http::test_server::{self, Server};

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn client(server: &Server) -> Client {
        Client::new(
            Transport::new(format!("http://{}", server.addr), None, &[]).unwrap(),
            Credential::shared_key("c2VjcmV0").unwrap(),
            Clock::System,
            "acct".to_owned(),
            "/acct".to_owned(),
            "locks".to_owned(),
            7,
        )
        .unwrap()
    }

    /// Every operation, as its error names it, and its result.
    fn results_of_all_operations(client: &Client) -> Vec<(&'static str, Result<(), Error>)> {
        let (id, record) = (LeaseId::random().unwrap(), Record::default());
        let duration = LeaseDuration::MAX;
        let acquired = client.acquire("k", id, duration, TIMEOUT);
        let changed = client.change("k", id, LeaseId::random().unwrap(), TIMEOUT);
        let broken = client.break_lease("k", None, None, TIMEOUT);
        let written = client.write_record("k", id, &record, None, TIMEOUT);
        let stored = client.write_content("k", id, &record, b"x", "*", TIMEOUT);
        vec![
            ("acquire lease on `acct/locks/k`", acquired.map(drop)),
            (
                "renew lease on `acct/locks/k`",
                client.renew("k", id, false, TIMEOUT),
            ),
            ("change lease on `acct/locks/k`", changed),
            (
                "release lease on `acct/locks/k`",
                client.release("k", id, TIMEOUT),
            ),
            ("break lease on `acct/locks/k`", broken.map(drop)),
            (
                "read the status of `acct/locks/k`",
                client.status("k", TIMEOUT).map(drop),
            ),
            (
                "ask for the time of `acct/locks/`",
                client.service_time(TIMEOUT).map(drop),
            ),
            (
                "read the metadata of `acct/locks/k`",
                client.read_record("k", id, TIMEOUT).map(drop),
            ),
            ("write the metadata of `acct/locks/k`", written.map(drop)),
            (
                "read the content of `acct/locks/k`",
                client.read_content("k", id, TIMEOUT).map(drop),
            ),
            ("write the content of `acct/locks/k`", stored.map(drop)),
            (
                "list `acct/locks/`",
                client.list("", None, TIMEOUT).map(drop),
            ),
            (
                "create container `acct/locks`",
                client.create_container(TIMEOUT),
            ),
            (
                "create lock blob `acct/locks/k`",
                client.create_blob("k", TIMEOUT).map(drop),
            ),
        ]
    }

    #[test]
    fn web_server_that_says_ok_to_everything_confirms_nothing() {
        let page = "<html>Welcome to nginx!</html>";
        let headers = "Server: nginx\r\nContent-Type: text/html\r\nETag: \"5e-1\"\r\n\
                       Date: Fri, 25 Oct 2019 18:13:24 GMT\r\n";
        let server = Server::start(move |_, head| match head.starts_with("HEAD") {
            true => test_server::reply("200 OK", headers, ""),
            false => test_server::reply("200 OK", headers, page),
        });
        let client = client(&server);
        for (operation, result) in results_of_all_operations(&client) {
            let error = result.expect_err(operation);
            assert_eq!(
                (error.kind(), error.delivery()),
                (ErrorKind::Protocol, Delivery::Refused)
            );
            assert_eq!(
                error.to_string(),
                format!(
                    "failed to {operation}: this is not Azure Blob Storage: the reply has no x-ms \
                     headers (Server: nginx); check endpoint and proxy (status 200; {})",
                    server.addr
                )
            );
        }
    }

    #[test]
    fn success_without_an_etag_confirms_nothing() {
        let server = Server::start(|_, _| test_server::reply("200 OK", "x-ms-version: 1\r\n", ""));
        let client = client(&server);
        for (operation, result) in results_of_all_operations(&client) {
            let error = result.expect_err(operation);
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
            let without = ["list", "ask for the time"];
            if !without.iter().any(|listing| operation.starts_with(listing)) {
                assert!(
                    error.to_string().contains("the reply has no ETag"),
                    "{error}"
                );
                assert_eq!(error.delivery(), Delivery::Unknown, "{error}");
            }
        }
    }

    #[test]
    fn break_goes_out_on_a_new_connection() {
        // It closes every connection when a second request comes in on it.
        let server = Server::start({
            let seen = parking_lot::Mutex::new(Vec::new());
            move |connection, _| {
                let mut seen = seen.lock();
                if seen.contains(&connection) {
                    return test_server::Answer::Close;
                }
                seen.push(connection);
                let headers = "x-ms-version: 1\r\nETag: \"5\"\r\nx-ms-lease-time: 7\r\n";
                test_server::reply("202 Accepted", headers, "")
            }
        });
        let client = client(&server);
        for _ in 0..10 {
            let _ = client.status("k", TIMEOUT);
            let broken = client.break_lease("k", None, None, TIMEOUT);
            assert_eq!(broken.unwrap(), Duration::from_secs(7));
        }
    }

    #[test]
    fn request_ids_are_this_process_s_own() {
        let (sender, ids) = std::sync::mpsc::channel();
        let sender = parking_lot::Mutex::new(sender);
        let server = Server::start(move |_, head| {
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix("x-ms-client-request-id: "));
            sender.lock().send(line.unwrap().to_owned()).unwrap();
            test_server::Answer::Close
        });
        let client = client(&server);
        client.status("k", TIMEOUT).unwrap_err();
        client.status("k", TIMEOUT).unwrap_err();
        let process = process::id();
        for (count, id) in ids.try_iter().enumerate() {
            assert!(id.ends_with(&format!("-{process}-{count}")), "{id}");
        }
    }
}
