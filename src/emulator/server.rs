//! The listener and its connections: bytes in, bytes out.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::auth::{ACCOUNT, Authorizer};
use super::failure::{self, Failure};
use super::operation::Operation;
use super::reply::{Context, Reply};
use super::request::{Request, Target};
use super::service::Call;
use super::store::{Moment, Store};
use crate::time::test_clock::Clock;

const HEAD_LIMIT: usize = 64 * 1024;
const BODY_LIMIT: usize = 8 * 1024 * 1024;
const HEADERS_LIMIT: usize = 128;
/// The stack of a connection's thread. It is small, since thousands may be open at once.
const STACK: usize = 256 * 1024;
/// How long a connection may be idle, as at the service.
const IDLE: Duration = Duration::from_secs(120);
/// How long to read on after a refusal that ends the connection, so that the client can read it.
const LINGER: Duration = Duration::from_millis(200);
/// One in this many empty successes is chunked.
const CHUNK_EVERY: u64 = 8;

/// The server behind an emulator, shared by its threads.
pub(super) struct Server {
    clock: Clock,
    authorizer: Authorizer,
    endpoint: String,
    address: SocketAddr,
    store: Mutex<Store>,
    /// The open connections by number; `None` once the server has stopped.
    open: Mutex<Option<HashMap<u64, Arc<TcpStream>>>>,
    is_stopping: AtomicBool,
    connections: AtomicU64,
    requests: AtomicU64,
    empty_successes: AtomicU64,
}

impl Server {
    /// Starts to listen, and answers on a thread of its own.
    pub(super) fn start(
        address: SocketAddr,
        clock: Clock,
        authorizer: Authorizer,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let server = Arc::new(Self::new(address, clock, authorizer));
        let shared = Arc::clone(&server);
        let thread = thread::Builder::new()
            .name("azmutex-emulator".to_owned())
            .spawn(move || shared.accept(&listener))?;
        Ok((server, thread))
    }

    fn new(address: SocketAddr, clock: Clock, authorizer: Authorizer) -> Self {
        Self {
            clock,
            authorizer,
            endpoint: format!("http://{address}/{ACCOUNT}"),
            address,
            store: Mutex::default(),
            open: Mutex::new(Some(HashMap::new())),
            is_stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            empty_successes: AtomicU64::new(0),
        }
    }

    /// A server that does not listen.
    #[cfg(any(test, fuzzing))]
    pub(super) fn detached(clock: Clock, authorizer: Authorizer) -> Self {
        Self::new(ANY_PORT, clock, authorizer)
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Stops accepting and closes all connections. Returns whether the accepting thread is about to
    /// end, so that it can be joined.
    pub(super) fn stop(&self) -> bool {
        self.is_stopping.store(true, Ordering::SeqCst);
        for stream in self
            .open
            .lock()
            .take()
            .into_iter()
            .flat_map(HashMap::into_values)
        {
            let _ = stream.shutdown(Shutdown::Both); // It may be closed already.
        }
        // A connection wakes the thread. Without one, joining it would never return.
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.spawn(stream),
                Err(error) => {
                    // Such as too many open files: others may be closed soon.
                    log::warn!("emulator failed to accept a connection: {error}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn spawn(self: &Arc<Self>, stream: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            server: Arc::clone(self),
            number,
            stream: Arc::new(stream),
        };
        if !self.register(&connection) {
            return;
        }
        let spawned = thread::Builder::new()
            .name(format!("azmutex-emulator:{number}"))
            .stack_size(STACK)
            .spawn(move || connection.run());
        if let Err(error) = spawned {
            log::warn!("emulator failed to start a thread: {error}");
        }
    }

    /// `false` once the server has stopped.
    fn register(&self, connection: &Connection) -> bool {
        let mut open = self.open.lock();
        let Some(open) = &mut *open else {
            return false;
        };
        open.insert(connection.number, Arc::clone(&connection.stream));
        true
    }

    /// Answers the request that `bytes` begin with, if it is complete.
    pub(super) fn step(&self, bytes: &[u8], caller: IpAddr) -> Step {
        let refused = |failure| Step::Answered {
            used: bytes.len(),
            answer: self.refuse(&failure),
            is_last: true,
        };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(head)) if head <= HEAD_LIMIT => head,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => {
                return Step::Incomplete {
                    needed: 0,
                    is_asking: false,
                };
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                return refused(failure::HEADERS_TOO_LARGE);
            }
            Err(_) => return refused(failure::BAD_REQUEST),
        };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return refused(failure::BAD_REQUEST);
        };
        let Some(request) = Request::new(method, target, parsed.headers) else {
            return refused(failure::BAD_REQUEST);
        };
        let connection = request.header("connection").unwrap_or_default();
        let mut is_last =
            parsed.version == Some(0) || connection.to_ascii_lowercase().contains("close");
        let mut body = Ok(Default::default());
        let mut used = bytes.len();
        match body_length(&request) {
            Err(failure) if failure == failure::BAD_REQUEST => return refused(failure),
            // What follows is of unknown length, or too long.
            Err(failure) => {
                body = Err(failure);
                is_last = true;
            }
            Ok(length) if bytes.len() < head + length => {
                return Step::Incomplete {
                    needed: head + length,
                    is_asking: request.header("expect").is_some(),
                };
            }
            Ok(length) => {
                used = head + length;
                body = body.map(|_: &[u8]| &bytes[head..used]);
            }
        }
        Step::Answered {
            used,
            answer: self.answer(&request, body, is_last, caller),
            is_last,
        }
    }

    fn answer(
        &self,
        request: &Request<'_>,
        body: Result<&[u8], Failure>,
        is_last: bool,
        caller: IpAddr,
    ) -> Vec<u8> {
        let result = body.and_then(|body| self.carry_out(request, body, caller));
        let mut context = self.context(is_last);
        context.version = request.version();
        context.client_request_id = request.header("x-ms-client-request-id");
        context.is_head = request.is_head();
        let (method, path) = (request.method, request.path);
        match result {
            Ok(reply) => {
                log::debug!("emulator: {method} {path}: {}", reply.status());
                context.chunk_empty = self.chunk_empty(&reply);
                reply.write(&context)
            }
            Err(failure) => {
                let Failure { status, code, .. } = failure;
                log::debug!("emulator: {method} {path}: {status} {code}");
                failure.write(&context)
            }
        }
    }

    fn carry_out(
        &self,
        request: &Request<'_>,
        body: &[u8],
        caller: IpAddr,
    ) -> Result<Reply, Failure> {
        // What is not authorized learns nothing else.
        let target = Target::parse(request.path, ACCOUNT);
        let operation = match &target {
            Ok(target) => Operation::of(request, target),
            Err(failure) => Err(failure.clone()),
        };
        let authorized = self.authorizer.check(
            request,
            target.as_ref().ok(),
            operation.as_ref().ok().copied(),
            caller,
            self.moment(),
        )?;
        let (target, operation) = (target?, operation?);
        let mut store = self.store.lock();
        let call = Call {
            operation,
            request,
            by_sas: authorized.by_sas,
            may_overwrite: authorized.may_overwrite,
            body,
            endpoint: &self.endpoint,
            now: self.moment(),
        };
        call.answer(&mut store, &target)
    }

    fn moment(&self) -> Moment {
        Moment {
            tick: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// The answer to bytes that are not a request.
    fn refuse(&self, failure: &Failure) -> Vec<u8> {
        log::debug!("emulator: {} {}", failure.status, failure.message);
        failure.write(&self.context(true))
    }

    fn context(&self, is_last: bool) -> Context<'_> {
        Context {
            serial: self.requests.fetch_add(1, Ordering::Relaxed),
            wall: self.clock.wall(),
            version: None,
            client_request_id: None,
            is_head: false,
            is_last,
            chunk_empty: false,
        }
    }

    fn chunk_empty(&self, reply: &Reply) -> bool {
        reply.is_empty()
            && self.empty_successes.fetch_add(1, Ordering::Relaxed) % CHUNK_EVERY == CHUNK_EVERY - 1
    }
}

struct Connection {
    server: Arc<Server>,
    number: u64,
    stream: Arc<TcpStream>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // The other side may have closed it.
        if let Some(open) = &mut *self.server.open.lock() {
            open.remove(&self.number);
        }
    }
}

/// What became of the bytes read so far.
pub(super) enum Step {
    /// The answer to a request of `used` bytes.
    Answered {
        used: usize,
        answer: Vec<u8>,
        is_last: bool,
    },
    /// At least `needed` bytes must be there; the client may be waiting for `100 Continue`.
    Incomplete { needed: usize, is_asking: bool },
}

impl Connection {
    fn run(self) {
        if let Err(error) = self.serve() {
            log::trace!("emulator: connection {}: {error}", self.number);
        }
    }

    fn serve(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(IDLE))?;
        self.stream.set_write_timeout(Some(IDLE))?;
        let caller = self.stream.peer_addr()?.ip();
        let mut bytes = Vec::new();
        let mut was_told = false;
        loop {
            match self.server.step(&bytes, caller) {
                Step::Answered {
                    used,
                    answer,
                    is_last,
                } => {
                    (&*self.stream).write_all(&answer)?;
                    if is_last {
                        return self.linger();
                    }
                    bytes.drain(..used);
                    was_told = false;
                }
                Step::Incomplete { needed, is_asking } => {
                    if is_asking && !was_told {
                        (&*self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                        was_told = true;
                    }
                    if !self.read(&mut bytes, needed)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads once, for about as much as is needed. `false` at the end.
    fn read(&self, bytes: &mut Vec<u8>, needed: usize) -> io::Result<bool> {
        let start = bytes.len();
        let room = needed.saturating_sub(start).clamp(2048, 64 * 1024);
        bytes.resize(start + room, 0);
        let read = (&*self.stream).read(&mut bytes[start..])?;
        bytes.truncate(start + read);
        Ok(read > 0)
    }

    /// Reads what the client still sends: if the connection were closed with bytes unread, the
    /// answer would be lost.
    fn linger(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.set_read_timeout(Some(LINGER))?;
        let mut dropped = [0; 8192];
        for _ in 0..BODY_LIMIT / dropped.len() {
            if (&*self.stream).read(&mut dropped)? == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn body_length(request: &Request<'_>) -> Result<usize, Failure> {
    let mut lengths = request
        .headers()
        .filter(|(name, _)| *name == "content-length");
    let length = lengths.next().map(|(_, value)| value);
    let is_chunked = request.header("transfer-encoding").is_some();
    match length {
        Some(_) if is_chunked || lengths.next().is_some() => Err(failure::BAD_REQUEST),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            let length = text.parse().ok().filter(|length| *length <= BODY_LIMIT);
            length.ok_or(failure::REQUEST_BODY_TOO_LARGE)
        }
        Some(_) => Err(failure::BAD_REQUEST),
        None if is_chunked || request.method == "PUT" => {
            Err(failure::MISSING_CONTENT_LENGTH_HEADER)
        }
        None => Ok(0),
    }
}

/// Where an emulator listens by default: a free port of this machine.
pub(super) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
