//! A proxy between client and service that injects faults between whole HTTP/1.1 messages.
//!
//! It reads each request to its end and decides only then, so a test can say on which side of
//! the service's action a connection broke. A client's connection is served by one thread, has
//! one connection to the service and stays open as long as both sides keep it; all of it ends
//! when the proxy is dropped. Not understood: TLS, upgrades and `Expect: 100-continue`.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What the proxy does to one request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Nothing: forwards the request and passes the reply on.
    Pass,
    /// Closes the connection without forwarding: the request never reached the service.
    DropBefore,
    /// Forwards, reads the reply and closes the connection: the service acted, the reply is lost.
    DropAfter,
    /// As [`Fault::DropBefore`], with a reset instead of an orderly end.
    ResetBefore,
    /// As [`Fault::DropAfter`], with a reset instead of an orderly end.
    ResetAfter,
    /// Neither forwards nor answers; the connection stays open until
    /// [`FaultProxy::release_hung`].
    HangBefore,
    /// Forwards and reads the reply, but never answers; the connection stays open until
    /// [`FaultProxy::release_hung`].
    HangAfter,
    /// Answers with these bytes without forwarding. The connection is kept if they are a reply
    /// that leaves it open. To a HEAD request only the reply's head is sent.
    Answer(Vec<u8>),
    /// Forwards, and answers with these bytes instead of the reply, as [`Fault::Answer`] does.
    AnswerAfter(Vec<u8>),
    /// Forwards, passes the first bytes of the reply, so many, and closes the connection.
    Truncate(usize),
    /// Passes the reply unchanged, which leaves the connection open, and then closes it.
    CloseAfterReply,
    /// Passes the reply with its head changed by this function.
    Rewrite(Arc<dyn Fn(&mut ReplyHead) + Send + Sync>),
    /// Forwards at once, and passes the reply on after this time.
    Delay(Duration),
    /// Forwards only after [`FaultProxy::release_held`], even if the client has gone by then.
    Hold,
    /// Forwards at once, and passes the reply on after [`FaultProxy::release_held`].
    HoldReply,
    /// Closes the connection; [`FaultProxy::deliver_late`] forwards the request.
    Defer,
    /// Forwards and passes the reply on; [`FaultProxy::deliver_late`] forwards the request again.
    Duplicate,
}

impl Fault {
    /// Passes the reply with one header set to another value, or added if it has none.
    pub(crate) fn replace_header(name: &str, value: &str) -> Self {
        let (name, value) = (name.to_owned(), value.to_owned());
        Self::Rewrite(Arc::new(move |reply| {
            reply
                .headers
                .retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
            reply.headers.push((name.clone(), value.clone()));
        }))
    }

    /// Passes the reply without one header.
    pub(crate) fn remove_header(name: &str) -> Self {
        let name = name.to_owned();
        Self::Rewrite(Arc::new(move |reply| {
            reply
                .headers
                .retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        }))
    }
}

impl Fault {
    /// Whether the client hears nothing until its time is over.
    pub(crate) fn hangs(&self) -> bool {
        matches!(self, Self::HangBefore | Self::HangAfter)
    }

    /// How long a client that a test waits for should wait for an answer to one operation: with
    /// time for a busy machine, and for another try after one that hangs.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(if self.hangs() { 6 } else { 10 })
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("Pass"),
            Self::DropBefore => f.write_str("DropBefore"),
            Self::DropAfter => f.write_str("DropAfter"),
            Self::ResetBefore => f.write_str("ResetBefore"),
            Self::ResetAfter => f.write_str("ResetAfter"),
            Self::HangBefore => f.write_str("HangBefore"),
            Self::HangAfter => f.write_str("HangAfter"),
            Self::Answer(bytes) => write!(f, "Answer({:?})", status_line(bytes)),
            Self::AnswerAfter(bytes) => write!(f, "AnswerAfter({:?})", status_line(bytes)),
            Self::Truncate(n) => write!(f, "Truncate({n})"),
            Self::CloseAfterReply => f.write_str("CloseAfterReply"),
            Self::Rewrite(_) => f.write_str("Rewrite"),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::Hold => f.write_str("Hold"),
            Self::HoldReply => f.write_str("HoldReply"),
            Self::Defer => f.write_str("Defer"),
            Self::Duplicate => f.write_str("Duplicate"),
        }
    }
}

fn status_line(reply: &[u8]) -> String {
    let end = reply.iter().position(|&byte| byte == b'\r');
    String::from_utf8_lossy(&reply[..end.unwrap_or(reply.len())]).into_owned()
}

/// The head of a request as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl RequestHead {
    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Which lease operation it asks for: `acquire`, `renew`, `change`, `release` or `break`.
    pub(crate) fn lease_action(&self) -> Option<&str> {
        self.header("x-ms-lease-action")
    }

    /// What it asks for: a lease operation by its name, `put metadata`, `get properties`,
    /// `put content`, `get content`, or `other`.
    pub(crate) fn operation(&self) -> &str {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        match (self.method.as_str(), query) {
            (_, "comp=lease") => self.lease_action().unwrap_or("other"),
            ("PUT", "comp=metadata") => "put metadata",
            ("HEAD", "") => "get properties",
            ("GET", "") => "get content",
            ("PUT", "") => "put content",
            _ => "other",
        }
    }
}

/// The head of a reply, for [`Fault::Rewrite`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl ReplyHead {
    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter();
        head(
            self.status,
            &self.reason,
            headers.map(|(name, value)| (name.as_str(), value.as_str())),
        )
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A request that came to the proxy, and what has become of it so far.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) request: RequestHead,
    pub(crate) fault: Fault,
    /// The status that the service answered, once it has.
    pub(crate) upstream: Option<u16>,
    /// The status of the reply that went to the client whole, once one has.
    pub(crate) answered: Option<u16>,
}

impl Deref for Seen {
    type Target = RequestHead;

    fn deref(&self) -> &RequestHead {
        &self.request
    }
}

type Predicate = Box<dyn Fn(&RequestHead) -> bool + Send>;

type Chooser = Box<dyn FnMut(&RequestHead) -> Fault + Send>;

struct Rule {
    matches: Predicate,
    fault: Fault,
}

#[derive(Default)]
struct State {
    /// Each is used for one request: the first that it matches.
    queued: Vec<Rule>,
    /// Used for what no queued rule matches, the one set last first.
    standing: Vec<Rule>,
    /// Takes the place of all of these.
    chooser: Option<Chooser>,
    seen: Vec<Seen>,
    /// Requests for [`FaultProxy::deliver_late`]: method and bytes.
    late: Vec<(String, Vec<u8>)>,
    /// How often [`FaultProxy::release_held`] and [`FaultProxy::release_hung`] were called.
    held_releases: u64,
    hung_releases: u64,
    /// Every open socket, so that dropping the proxy can end the threads that read from them.
    open: HashMap<u64, Arc<TcpStream>>,
    opened: u64,
    accepted: u64,
    stopping: bool,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

/// The running proxy.
pub(crate) struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy on a free loopback port that forwards to `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let addr = listener.local_addr().expect("a bound listener's address");
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self {
            addr,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The emulators' account through this proxy, path style, without a trailing slash.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/devstoreaccount1", self.addr)
    }

    /// The connection string of the emulators' account through this proxy.
    pub(crate) fn connection_string(&self) -> String {
        super::azurite::connection_string(&self.endpoint())
    }

    /// Queues a fault for the next request. Of several queued the first that matches is used.
    pub(crate) fn push(&self, fault: Fault) {
        self.when(|_| true, fault);
    }

    /// Queues a fault for the next request that matches.
    pub(crate) fn when(
        &self,
        matches: impl Fn(&RequestHead) -> bool + Send + 'static,
        fault: Fault,
    ) {
        let matches = Box::new(matches);
        self.shared
            .state
            .lock()
            .queued
            .push(Rule { matches, fault });
    }

    /// Sets the fault for every request that no queued one is for, or sets none. Takes the place
    /// of all standing faults.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.shared.state.lock().standing.clear();
        if let Some(fault) = fault {
            self.always_when(|_| true, fault);
        }
    }

    /// Adds a fault for every matching request that no queued one is for. The one added last is
    /// tried first.
    pub(crate) fn always_when(
        &self,
        matches: impl Fn(&RequestHead) -> bool + Send + 'static,
        fault: Fault,
    ) {
        let matches = Box::new(matches);
        let mut state = self.shared.state.lock();
        state.standing.insert(0, Rule { matches, fault });
    }

    /// Lets this function choose the fault of every request, until [`FaultProxy::clear`]. What
    /// comes meanwhile is not written down, so that it may go on for hours.
    pub(crate) fn choose(&self, chooser: impl FnMut(&RequestHead) -> Fault + Send + 'static) {
        self.shared.state.lock().chooser = Some(Box::new(chooser));
    }

    /// Takes back all queued and standing faults: what comes from now on passes.
    pub(crate) fn clear(&self) {
        let mut state = self.shared.state.lock();
        state.queued.clear();
        state.standing.clear();
        state.chooser = None;
    }

    /// Lets go what [`Fault::Hold`] and [`Fault::HoldReply`] hold at this moment.
    pub(crate) fn release_held(&self) {
        self.shared.state.lock().held_releases += 1;
        self.shared.changed.notify_all();
    }

    /// Closes the connections that [`Fault::HangBefore`] and [`Fault::HangAfter`] keep open at
    /// this moment.
    pub(crate) fn release_hung(&self) {
        self.shared.state.lock().hung_releases += 1;
        self.shared.changed.notify_all();
    }

    /// Forwards the requests that [`Fault::Defer`] and [`Fault::Duplicate`] kept, oldest first,
    /// each once and on a connection of its own. Returns what the service answered.
    pub(crate) fn deliver_late(&self) -> Vec<ReplyHead> {
        let answers = self.try_deliver_late().into_iter();
        answers
            .map(|answer| answer.expect("the service answers the late request"))
            .collect()
    }

    /// The same; a request that does not arrive is lost.
    pub(crate) fn try_deliver_late(&self) -> Vec<io::Result<ReplyHead>> {
        let late = std::mem::take(&mut self.shared.state.lock().late);
        late.iter()
            .map(|(method, request)| {
                let mut service = Conn::connect(&self.shared)?;
                Ok(service.exchange(method, request)?.head)
            })
            .collect()
    }

    /// The requests seen so far, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().seen.clone()
    }

    /// How many connections clients have made.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.state.lock().accepted
    }

    /// Waits until at least `n` of the requests seen match, and returns those that do.
    ///
    /// A request is looked at when it has come and again when the service has answered it and
    /// when it is answered, so `|seen| seen.upstream.is_some()` waits until the service acted.
    ///
    /// # Panics
    ///
    /// If that has not come about within `timeout`.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        n: usize,
        matches: impl Fn(&Seen) -> bool,
        timeout: Duration,
    ) -> Vec<Seen> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        loop {
            let matching = state.seen.iter().filter(|seen| matches(seen));
            let matching: Vec<_> = matching.cloned().collect();
            if matching.len() >= n {
                return matching;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {n} requests matched within {timeout:?}; seen: {:#?}",
                matching.len(),
                state.seen
            );
            self.shared.changed.wait_until(&mut state, deadline);
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the accepting thread, which then sees that it is to stop.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        // Refused only when the proxy is being dropped.
        let Ok(client) = Conn::adopt(client, shared) else {
            break;
        };
        shared.state.lock().accepted += 1;
        serving.retain(|thread| !thread.is_finished());
        serving.push(thread::spawn({
            let shared = Arc::clone(shared);
            move || serve(&shared, client)
        }));
    }
    // Under Wine, a read goes on although its own side shut the socket down.
    if cfg!(not(windows)) {
        for thread in serving {
            let _ = thread.join();
        }
    }
}

/// Answers a client's requests until either side closes or a fault ends the connection.
fn serve(shared: &Arc<Shared>, mut client: Conn) {
    let mut service = None;
    while let Ok(Some((request, raw))) = client.read_request() {
        let exchange = Exchange {
            case: shared.record(&request, &raw),
            shared,
            request: &request,
            raw: &raw,
            service: &mut service,
        };
        match exchange.run(&mut client) {
            Ok(After::Keep) => {}
            Ok(After::Close) | Err(_) => return,
            Ok(After::Reset) => {
                // A linger of zero makes the close that follows a reset.
                let socket = socket2::SockRef::from(&*client.stream);
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

/// What becomes of the client's connection.
enum After {
    Keep,
    Close,
    Reset,
}

/// What was decided for a request when it came.
struct Case {
    /// Its place in `State::seen`, if it was written down.
    index: Option<usize>,
    fault: Fault,
    held_releases: u64,
    hung_releases: u64,
}

struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    request: &'a RequestHead,
    raw: &'a [u8],
    case: Case,
    service: &'a mut Option<Conn>,
}

impl Exchange<'_> {
    fn run(mut self, client: &mut Conn) -> io::Result<After> {
        match self.case.fault.clone() {
            Fault::Pass => {
                let reply = self.forward()?;
                self.pass(client, &reply)
            }
            // What is deferred was put aside when it was recorded.
            Fault::DropBefore | Fault::Defer => Ok(After::Close),
            Fault::DropAfter => {
                self.forward()?;
                Ok(After::Close)
            }
            Fault::ResetBefore => Ok(After::Reset),
            Fault::ResetAfter => {
                self.forward()?;
                Ok(After::Reset)
            }
            Fault::HangBefore => {
                self.hang();
                Ok(After::Close)
            }
            Fault::HangAfter => {
                self.forward()?;
                self.hang();
                Ok(After::Close)
            }
            Fault::Answer(bytes) => self.answer(client, &bytes),
            Fault::AnswerAfter(bytes) => {
                self.forward()?;
                self.answer(client, &bytes)
            }
            Fault::Truncate(n) => {
                let reply = self.forward()?;
                client.write(&reply.raw[..n.min(reply.raw.len())])?;
                Ok(After::Close)
            }
            Fault::CloseAfterReply => {
                let reply = self.forward()?;
                self.pass(client, &reply)?;
                Ok(After::Close)
            }
            Fault::Rewrite(change) => {
                let mut reply = self.forward()?;
                let body = reply.raw.split_off(reply.head_len);
                change(&mut reply.head);
                reply.raw = reply.head.to_bytes();
                reply.raw.extend(body);
                self.pass(client, &reply)
            }
            Fault::Delay(time) => {
                let reply = self.forward()?;
                self.shared.wait(Some(Instant::now() + time), |_| false);
                self.pass(client, &reply)
            }
            Fault::Hold => {
                self.hold();
                let reply = self.forward()?;
                self.pass(client, &reply)
            }
            Fault::HoldReply => {
                let reply = self.forward()?;
                self.hold();
                self.pass(client, &reply)
            }
            Fault::Duplicate => {
                let reply = self.forward()?;
                let again = (self.request.method.clone(), self.raw.to_vec());
                self.shared.state.lock().late.push(again);
                self.pass(client, &reply)
            }
        }
    }

    /// Sends the request to the service and reads the whole reply.
    fn forward(&mut self) -> io::Result<Reply> {
        let mut service = match self.service.take() {
            Some(idle) if idle.is_open() => idle,
            _ => Conn::connect(self.shared)?,
        };
        let reply = service.exchange(&self.request.method, self.raw)?;
        if reply.keeps_open {
            *self.service = Some(service);
        }
        self.note(|seen| seen.upstream = Some(reply.head.status));
        Ok(reply)
    }

    fn pass(&self, client: &mut Conn, reply: &Reply) -> io::Result<After> {
        // Noted before it is sent: whoever has the reply may ask what was seen.
        self.note(|seen| seen.answered = Some(reply.head.status));
        client.write(&reply.raw)?;
        let asked_to_close = has_token(self.request.header("connection"), "close");
        Ok(if reply.keeps_open && !asked_to_close {
            After::Keep
        } else {
            After::Close
        })
    }

    fn answer(&self, client: &mut Conn, bytes: &[u8]) -> io::Result<After> {
        let Ok(Some((head, head_len))) = parse_reply(bytes) else {
            client.write(bytes)?;
            return Ok(After::Close);
        };
        let bytes = match self.request.method.as_str() {
            "HEAD" => &bytes[..head_len],
            _ => bytes,
        };
        let framing = Framing::of_reply(&head, &self.request.method);
        let reply = Reply {
            keeps_open: keeps_open(&head, framing),
            head,
            head_len,
            raw: bytes.to_vec(),
        };
        self.pass(client, &reply)
    }

    fn hold(&self) {
        let before = self.case.held_releases;
        self.shared.wait(None, |state| state.held_releases > before);
    }

    fn hang(&self) {
        let before = self.case.hung_releases;
        self.shared.wait(None, |state| state.hung_releases > before);
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        let Some(index) = self.case.index else { return };
        change(&mut self.shared.state.lock().seen[index]);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Decides what is done to a request, and writes it down.
    fn record(&self, request: &RequestHead, raw: &[u8]) -> Case {
        let mut state = self.state.lock();
        let queued = state.queued.iter().position(|rule| (rule.matches)(request));
        let fault = match (&mut state.chooser, queued) {
            (Some(choose), _) => choose(request),
            (None, Some(at)) => state.queued.remove(at).fault,
            (None, None) => state
                .standing
                .iter()
                .find(|rule| (rule.matches)(request))
                .map_or(Fault::Pass, |rule| rule.fault.clone()),
        };
        if matches!(fault, Fault::Defer) {
            state.late.push((request.method.clone(), raw.to_vec()));
        }
        let index = state.chooser.is_none().then_some(state.seen.len());
        if index.is_some() {
            state.seen.push(Seen {
                request: request.clone(),
                fault: fault.clone(),
                upstream: None,
                answered: None,
            });
            self.changed.notify_all();
        }
        // Read here, so that a release by whoever saw the request is never missed.
        Case {
            index,
            fault,
            held_releases: state.held_releases,
            hung_releases: state.hung_releases,
        }
    }

    /// Waits until the condition holds, the deadline passes or the proxy is dropped.
    fn wait(&self, deadline: Option<Instant>, until: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        while !state.stopping && !until(&state) {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(at) => {
                    if self.changed.wait_until(&mut state, at).timed_out() {
                        return;
                    }
                }
            }
        }
    }
}

/// A connection, of the client's or to the service, with what was read ahead.
struct Conn {
    shared: Arc<Shared>,
    id: u64,
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
}

struct Reply {
    head: ReplyHead,
    head_len: usize,
    raw: Vec<u8>,
    keeps_open: bool,
}

impl Conn {
    fn adopt(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        let mut state = shared.state.lock();
        if state.stopping {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.opened += 1;
        let id = state.opened;
        state.open.insert(id, Arc::clone(&stream));
        drop(state);
        Ok(Self {
            shared: Arc::clone(shared),
            id,
            stream,
            buffer: Vec::new(),
        })
    }

    fn connect(shared: &Arc<Shared>) -> io::Result<Self> {
        Self::adopt(TcpStream::connect(shared.upstream)?, shared)
    }

    /// Whether the other side has not closed an idle connection.
    fn is_open(&self) -> bool {
        let peek = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        matches!(peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its reply.
    fn exchange(&mut self, method: &str, request: &[u8]) -> io::Result<Reply> {
        self.write(request)?;
        let (head, head_len) = self
            .read_head(parse_reply)?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let framing = Framing::of_reply(&head, method);
        let raw = self.take_message(head_len, framing)?;
        Ok(Reply {
            keeps_open: keeps_open(&head, framing),
            head,
            head_len,
            raw,
        })
    }

    /// The next request and its bytes; `None` if the client closed the connection before it.
    fn read_request(&mut self) -> io::Result<Option<(RequestHead, Vec<u8>)>> {
        let Some((head, head_len)) = self.read_head(parse_request)? else {
            return Ok(None);
        };
        let framing = Framing::of_request(&head);
        let raw = self.take_message(head_len, framing)?;
        Ok(Some((head, raw)))
    }

    fn read_head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> io::Result<Option<(T, usize)>>,
    ) -> io::Result<Option<(T, usize)>> {
        loop {
            if let Some(parsed) = parse(&self.buffer)? {
                return Ok(Some(parsed));
            }
            if self.fill()? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Takes a message whose head is in the buffer, to the end of its body.
    fn take_message(&mut self, head_len: usize, framing: Framing) -> io::Result<Vec<u8>> {
        let end = match framing {
            Framing::Length(n) => {
                self.fill_to(head_len + n)?;
                head_len + n
            }
            Framing::Chunked => self.fill_chunks(head_len)?,
            Framing::UntilClose => {
                while self.fill()? > 0 {}
                self.buffer.len()
            }
        };
        let rest = self.buffer.split_off(end);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads a chunked body that begins at `at`, and returns where it ends.
    fn fill_chunks(&mut self, mut at: usize) -> io::Result<usize> {
        loop {
            match httparse::parse_chunk_size(&self.buffer[at..]) {
                Ok(httparse::Status::Partial) => self.fill_some()?,
                Ok(httparse::Status::Complete((line, 0))) => {
                    at += line;
                    break;
                }
                Ok(httparse::Status::Complete((line, size))) => {
                    // The data is followed by a line end.
                    at += line + usize::try_from(size).map_err(invalid)? + 2;
                    self.fill_to(at)?;
                }
                Err(error) => return Err(invalid(error.to_string())),
            }
        }
        // Trailers, if any, up to an empty line.
        loop {
            match self.buffer[at..].iter().position(|&byte| byte == b'\n') {
                None => self.fill_some()?,
                Some(line_end) => {
                    let empty = matches!(&self.buffer[at..at + line_end], b"" | b"\r");
                    at += line_end + 1;
                    if empty {
                        return Ok(at);
                    }
                }
            }
        }
    }

    fn fill_to(&mut self, len: usize) -> io::Result<()> {
        while self.buffer.len() < len {
            self.fill_some()?;
        }
        Ok(())
    }

    fn fill_some(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 8192];
        let n = (&*self.stream).read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // The last reference but this one's own, so that the socket closes here.
        self.shared.state.lock().open.remove(&self.id);
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    fn of_request(head: &RequestHead) -> Self {
        Self::of_headers(&head.headers).unwrap_or(Self::Length(0))
    }

    fn of_reply(head: &ReplyHead, method: &str) -> Self {
        if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
            return Self::Length(0);
        }
        Self::of_headers(&head.headers).unwrap_or(Self::UntilClose)
    }

    fn of_headers(headers: &[(String, String)]) -> Option<Self> {
        if has_token(header(headers, "transfer-encoding"), "chunked") {
            return Some(Self::Chunked);
        }
        let length = header(headers, "content-length")?.parse().ok()?;
        Some(Self::Length(length))
    }
}

fn keeps_open(head: &ReplyHead, framing: Framing) -> bool {
    framing != Framing::UntilClose && !has_token(head.header("connection"), "close")
}

fn has_token(value: Option<&str>, token: &str) -> bool {
    let mut tokens = value.unwrap_or_default().split(',');
    tokens.any(|each| each.trim().eq_ignore_ascii_case(token))
}

const MAX_HEADERS: usize = 64;

fn parse_request(bytes: &[u8]) -> io::Result<Option<(RequestHead, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    Ok(match request.parse(bytes).map_err(invalid)? {
        httparse::Status::Partial => None,
        httparse::Status::Complete(len) => {
            let head = RequestHead {
                method: request.method.unwrap_or_default().to_owned(),
                target: request.path.unwrap_or_default().to_owned(),
                headers: owned(request.headers),
            };
            Some((head, len))
        }
    })
}

fn parse_reply(bytes: &[u8]) -> io::Result<Option<(ReplyHead, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut reply = httparse::Response::new(&mut headers);
    Ok(match reply.parse(bytes).map_err(invalid)? {
        httparse::Status::Partial => None,
        httparse::Status::Complete(len) => {
            let head = ReplyHead {
                status: reply.code.unwrap_or_default(),
                reason: reply.reason.unwrap_or_default().to_owned(),
                headers: owned(reply.headers),
            };
            Some((head, len))
        }
    })
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_owned(), value)
        })
        .collect()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A reply with these headers, a `Content-Length` and a body.
pub(crate) fn reply(status: u16, reason: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let length = [("Content-Length", length.as_str())];
    let mut bytes = head(status, reason, length.iter().chain(headers).copied());
    bytes.extend_from_slice(body);
    bytes
}

/// A reply that has the headers of every reply of the service to a request about a blob.
pub(crate) fn service_reply(
    status: u16,
    reason: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let fixed = [
        ("ETag", "\"0x8D4BCC2E4835CD0\""),
        ("x-ms-version", "2021-08-06"),
    ];
    reply(status, reason, &[&fixed, headers].concat(), body)
}

/// An error in the service's form: the code as header, the message as reason and both in a body
/// that begins with a byte order mark.
pub(crate) fn error_reply(
    status: u16,
    code: &str,
    message: &str,
    headers: &[(&str, &str)],
) -> Vec<u8> {
    const REQUEST_ID: &str = "3781ceea-e01e-00b7-76a5-15d5a7000000";
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code>\
         <Message>{message}\nRequestId:{REQUEST_ID}\nTime:2026-01-02T03:04:05.6789012Z</Message>\
         </Error>"
    );
    let fixed = [
        ("Content-Type", "application/xml"),
        ("Server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"),
        ("x-ms-request-id", REQUEST_ID),
        ("x-ms-error-code", code),
    ];
    reply(
        status,
        message,
        &[&fixed, headers].concat(),
        body.as_bytes(),
    )
}

/// 503 `ServerBusy`, with `Retry-After` in seconds if given.
pub(crate) fn server_busy(retry_after: Option<u64>) -> Vec<u8> {
    let seconds = retry_after.map(|seconds| seconds.to_string());
    let headers = seconds.iter().map(|value| ("Retry-After", value.as_str()));
    let headers: Vec<_> = headers.collect();
    error_reply(503, "ServerBusy", "The server is busy.", &headers)
}

/// A 503 of something between the client and the service, which knows nothing of the service.
pub(crate) fn gateway_unavailable() -> Vec<u8> {
    let headers = [("Content-Type", "text/plain")];
    reply(503, "Service Unavailable", &headers, b"upstream reset")
}

/// 500 `InternalError`.
pub(crate) fn internal_error() -> Vec<u8> {
    let message = "The server encountered an internal error. Please retry the request.";
    error_reply(500, "InternalError", message, &[])
}

/// 403 with a code such as `AuthenticationFailed` or `AuthorizationPermissionMismatch`.
pub(crate) fn forbidden(code: &str) -> Vec<u8> {
    let message = match code {
        "AuthenticationFailed" => {
            "Server failed to authenticate the request. Make sure the value of Authorization \
             header is formed correctly including the signature."
        }
        _ => "This request is not authorized to perform this operation.",
    };
    error_reply(403, code, message, &[])
}

fn head<'a>(
    status: u16,
    reason: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}
