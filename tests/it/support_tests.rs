//! Tests of the test support itself: each fault of the proxy is shown on a scripted service, and
//! Azurite is shown to answer and to end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::azurite::Azurite;
use crate::support::proxy::{self, Fault, FaultProxy};

/// Bounds what does not happen in a test that fails.
const LONG: Duration = Duration::from_secs(20);

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const GOT: &str = "HTTP/1.1 200 OK\r\nx-from: service\r\nContent-Length: 6\r\n\r\nGET /a";

/// A service that answers each request with what it was asked, and writes it down.
struct Service {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    /// Tells of each connection that the service has closed.
    closed: mpsc::Receiver<()>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let to = Arc::clone(&seen);
        let (closing, closed) = mpsc::channel();
        // It ends with the process: nothing of it needs to be put away.
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (client, to, closing) = (client.unwrap(), Arc::clone(&to), closing.clone());
                thread::spawn(move || {
                    let _ = Self::serve(number, client, &to);
                    let _ = closing.send(());
                });
            }
        });
        Self { addr, seen, closed }
    }

    fn serve(number: usize, client: TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if reader.read_until(b'\n', &mut head)? == 0 {
                    return Ok(());
                }
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let mut body = Vec::new();
            if head.contains("transfer-encoding: chunked") {
                while !body.ends_with(b"0\r\n\r\n") {
                    reader.read_until(b'\n', &mut body)?;
                }
            } else if let Some((_, rest)) = head.split_once("content-length: ") {
                body.resize(rest.lines().next().unwrap().parse().unwrap(), 0);
                reader.read_exact(&mut body)?;
            }
            let mut words = head.split(' ');
            let method = words.next().unwrap().to_ascii_uppercase();
            let target = words.next().unwrap();
            let asked = format!("{method} {target}{}", String::from_utf8_lossy(&body));
            seen.lock().push(asked.clone());
            let length = asked.len();
            let reply = match target {
                "/chunked" => concat!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "4;extension=1\r\nab\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n",
                    "0\r\nx-trailer: 1\r\n\r\n"
                )
                .to_owned(),
                "/204" => "HTTP/1.1 204 No Content\r\nx-from: service\r\n\r\n".to_owned(),
                "/until-close" => "HTTP/1.1 200 OK\r\n\r\nto the end".to_owned(),
                "/connection" => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")
                }
                _ if method == "HEAD" => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
                }
                _ => format!(
                    "HTTP/1.1 200 OK\r\nx-from: service\r\nContent-Length: {length}\r\n\r\n{asked}"
                ),
            };
            (&client).write_all(reply.as_bytes())?;
            if matches!(target, "/until-close" | "/last") {
                return Ok(());
            }
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

struct Client(TcpStream);

impl Client {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(stream)
    }

    fn send(&self, request: &str) {
        (&self.0).write_all(request.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&self, reply: &str) {
        let mut got = vec![0; reply.len()];
        if let Err(error) = (&self.0).read_exact(&mut got) {
            panic!("{error} instead of {reply:?}");
        }
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    /// The connection ends in order, without a further byte.
    #[track_caller]
    fn expect_end(&self) {
        let mut got = Vec::new();
        (&self.0).read_to_end(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), "");
    }

    #[track_caller]
    fn expect_reset(&self) {
        let error = (&self.0).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// The connection is open and nothing has come.
    #[track_caller]
    fn expect_nothing_yet(&self) {
        self.0.set_nonblocking(true).unwrap();
        let error = self.0.peek(&mut [0]).unwrap_err();
        self.0.set_nonblocking(false).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    /// The connection is still used: a request on it is passed.
    #[track_caller]
    fn expect_still_served(&self) {
        self.send(GET);
        self.expect(GOT);
    }
}

/// A service, a proxy that does this to the first request, and a client that has sent it.
fn sent_with(fault: Fault) -> (Service, FaultProxy, Client) {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    proxy.push(fault);
    let client = Client::new(proxy.addr());
    client.send(GET);
    (service, proxy, client)
}

fn outcome(proxy: &FaultProxy) -> (Option<u16>, Option<u16>) {
    let seen = &proxy.seen()[0];
    (seen.upstream, seen.answered)
}

#[test]
fn messages_pass_unchanged_whatever_their_framing() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let client = Client::new(proxy.addr());
    client.expect_still_served();
    client.send("PUT /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
    client.expect("HTTP/1.1 200 OK\r\nx-from: service\r\nContent-Length: 9\r\n\r\nPUT /babc");
    client.send("PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    client.expect(concat!(
        "HTTP/1.1 200 OK\r\nx-from: service\r\nContent-Length: 17\r\n\r\n",
        "PUT /c1\r\nx\r\n0\r\n\r\n"
    ));
    client.send("HEAD /d HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    client.send("GET /204 HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 204 No Content\r\nx-from: service\r\n\r\n");
    client.send("GET /chunked HTTP/1.1\r\n\r\n");
    client.expect(concat!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "4;extension=1\r\nab\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n",
        "0\r\nx-trailer: 1\r\n\r\n"
    ));
    client.expect_still_served();
    client.send("GET /until-close HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\n\r\nto the end");
    client.expect_end();
}

#[test]
fn a_request_in_pieces_is_forwarded_once_it_is_whole() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let client = Client::new(proxy.addr());
    for byte in GET.chars() {
        client.send(&byte.to_string());
    }
    client.expect(GOT);
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn the_service_connection_is_kept_for_each_client_connection() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let request = "GET /connection HTTP/1.1\r\n\r\n";
    let reply = |number| format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
    let (first, second) = (Client::new(proxy.addr()), Client::new(proxy.addr()));
    first.send(request);
    first.expect(&reply(0));
    second.send(request);
    second.expect(&reply(1));
    first.send(request);
    first.expect(&reply(0));
}

#[test]
fn a_service_connection_that_was_closed_while_idle_is_made_anew() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let client = Client::new(proxy.addr());
    client.send("GET /last HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nx-from: service\r\nContent-Length: 9\r\n\r\nGET /last");
    service.closed.recv_timeout(LONG).unwrap();
    client.expect_still_served();
}

#[test]
fn a_service_that_is_gone_ends_the_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let proxy = FaultProxy::start(addr);
    let client = Client::new(proxy.addr());
    client.send(GET);
    client.expect_end();
    assert_eq!(outcome(&proxy), (None, None));
}

#[test]
fn drop_before_keeps_the_request_from_the_service() {
    let (service, proxy, client) = sent_with(Fault::DropBefore);
    client.expect_end();
    assert!(service.seen().is_empty());
    assert_eq!(outcome(&proxy), (None, None));
}

#[test]
fn drop_after_loses_the_reply_but_not_the_request() {
    let (service, proxy, client) = sent_with(Fault::DropAfter);
    client.expect_end();
    assert_eq!(service.seen(), ["GET /a"]);
    assert_eq!(outcome(&proxy), (Some(200), None));
}

#[test]
fn reset_before_keeps_the_request_from_the_service() {
    let (service, _proxy, client) = sent_with(Fault::ResetBefore);
    client.expect_reset();
    assert!(service.seen().is_empty());
}

#[test]
fn reset_after_loses_the_reply_but_not_the_request() {
    let (service, _proxy, client) = sent_with(Fault::ResetAfter);
    client.expect_reset();
    assert_eq!(service.seen(), ["GET /a"]);
}

#[test]
fn hang_before_neither_forwards_nor_answers_until_released() {
    let (service, proxy, client) = sent_with(Fault::HangBefore);
    proxy.wait_for(1, |_| true, LONG);
    client.expect_nothing_yet();
    proxy.release_hung();
    client.expect_end();
    assert!(service.seen().is_empty());
}

#[test]
fn hang_after_forwards_and_never_answers() {
    let (service, proxy, client) = sent_with(Fault::HangAfter);
    proxy.wait_for(1, |seen| seen.upstream == Some(200), LONG);
    client.expect_nothing_yet();
    proxy.release_hung();
    client.expect_end();
    assert_eq!(service.seen(), ["GET /a"]);
}

#[test]
fn dropping_the_proxy_ends_what_hangs_and_what_is_idle() {
    let (_service, proxy, hung) = sent_with(Fault::HangBefore);
    proxy.wait_for(1, |_| true, LONG);
    let held = Client::new(proxy.addr());
    proxy.push(Fault::Hold);
    held.send(GET);
    proxy.wait_for(2, |_| true, LONG);
    let idle = Client::new(proxy.addr());
    idle.expect_still_served();
    let addr = proxy.addr();
    drop(proxy);
    hung.expect_end();
    held.expect_end();
    idle.expect_end();
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn answer_takes_the_place_of_the_service_and_keeps_the_connection() {
    let busy = String::from_utf8(proxy::server_busy(Some(7))).unwrap();
    let (service, proxy, client) = sent_with(Fault::Answer(busy.clone().into_bytes()));
    client.expect(&busy);
    assert_eq!(outcome(&proxy), (None, Some(503)));
    assert!(service.seen().is_empty());
    client.expect_still_served();
}

#[test]
fn answer_closes_the_connection_if_the_answer_says_so() {
    let answer = proxy::reply(200, "OK", &[("Connection", "close")], b"");
    let (_service, _proxy, client) = sent_with(Fault::Answer(answer.clone()));
    client.expect(std::str::from_utf8(&answer).unwrap());
    client.expect_end();
}

#[test]
fn answer_sends_what_is_no_reply_and_closes_the_connection() {
    let (_service, _proxy, client) = sent_with(Fault::Answer(b"no http\r\n".to_vec()));
    client.expect("no http\r\n");
    client.expect_end();
}

#[test]
fn answer_to_head_has_no_body() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let answer = proxy::reply(200, "OK", &[], b"body");
    proxy.push(Fault::Answer(answer));
    let client = Client::new(proxy.addr());
    client.send("HEAD /a HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    client.expect_still_served();
}

#[test]
fn answer_after_takes_the_place_of_the_reply() {
    let answer = String::from_utf8(proxy::internal_error()).unwrap();
    let (service, proxy, client) = sent_with(Fault::AnswerAfter(answer.clone().into_bytes()));
    client.expect(&answer);
    assert_eq!(service.seen(), ["GET /a"]);
    assert_eq!(outcome(&proxy), (Some(200), Some(500)));
    client.expect_still_served();
}

#[test]
fn truncate_passes_so_many_bytes_and_closes_the_connection() {
    let (service, _proxy, client) = sent_with(Fault::Truncate(GOT.len() - 2));
    client.expect(&GOT[..GOT.len() - 2]);
    client.expect_end();
    assert_eq!(service.seen(), ["GET /a"]);
}

#[test]
fn close_after_reply_passes_the_reply_unchanged_and_closes_the_connection() {
    let (_service, proxy, client) = sent_with(Fault::CloseAfterReply);
    client.expect(GOT);
    client.expect_end();
    assert_eq!(outcome(&proxy), (Some(200), Some(200)));
}

#[test]
fn replace_header_changes_one_header_of_the_reply() {
    let (_service, _proxy, client) = sent_with(Fault::replace_header("X-From", "proxy"));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-From: proxy\r\n\r\nGET /a");
    client.expect_still_served();
}

#[test]
fn remove_header_takes_one_header_from_the_reply() {
    let (_service, _proxy, client) = sent_with(Fault::remove_header("x-from"));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nGET /a");
}

#[test]
fn rewrite_changes_the_status_of_the_reply() {
    let (_service, proxy, client) = sent_with(Fault::Rewrite(Arc::new(|reply| {
        assert_eq!(reply.header("X-FROM"), Some("service"));
        reply.status = 202;
        reply.reason = "Accepted".to_owned();
    })));
    client.expect(&GOT.replace("200 OK", "202 Accepted"));
    assert_eq!(outcome(&proxy), (Some(200), Some(202)));
}

#[test]
fn delay_holds_the_reply_for_that_time() {
    let before = Instant::now();
    let (_service, _proxy, client) = sent_with(Fault::Delay(Duration::from_millis(100)));
    client.expect(GOT);
    assert!(before.elapsed() >= Duration::from_millis(100));
}

#[test]
fn hold_forwards_only_when_released() {
    let (service, proxy, client) = sent_with(Fault::Hold);
    proxy.wait_for(1, |_| true, LONG);
    // What was sent later arrives earlier.
    let other = Client::new(proxy.addr());
    other.send("GET /b HTTP/1.1\r\n\r\n");
    proxy.wait_for(1, |seen| seen.answered.is_some(), LONG);
    client.expect_nothing_yet();
    proxy.release_held();
    client.expect(GOT);
    assert_eq!(service.seen(), ["GET /b", "GET /a"]);
}

#[test]
fn hold_forwards_also_when_the_client_has_gone() {
    let (service, proxy, client) = sent_with(Fault::Hold);
    proxy.wait_for(1, |_| true, LONG);
    drop(client);
    proxy.release_held();
    proxy.wait_for(1, |seen| seen.upstream == Some(200), LONG);
    assert_eq!(service.seen(), ["GET /a"]);
}

#[test]
fn hold_reply_forwards_at_once_and_answers_when_released() {
    let (service, proxy, client) = sent_with(Fault::HoldReply);
    proxy.wait_for(1, |seen| seen.upstream == Some(200), LONG);
    assert_eq!(service.seen(), ["GET /a"]);
    client.expect_nothing_yet();
    proxy.release_held();
    client.expect(GOT);
}

#[test]
fn a_deferred_request_reaches_the_service_after_its_client_gave_up() {
    let (service, proxy, client) = sent_with(Fault::Defer);
    client.expect_end();
    assert!(service.seen().is_empty());
    let replies = proxy.deliver_late();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].status, 200);
    assert_eq!(service.seen(), ["GET /a"]);
    assert!(proxy.deliver_late().is_empty());
}

#[test]
fn a_duplicate_reaches_the_service_again_on_demand() {
    let (service, proxy, client) = sent_with(Fault::Duplicate);
    client.expect(GOT);
    assert_eq!(service.seen(), ["GET /a"]);
    assert_eq!(proxy.deliver_late()[0].header("x-from"), Some("service"));
    assert_eq!(service.seen(), ["GET /a", "GET /a"]);
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn a_queued_fault_waits_for_the_request_that_it_is_for() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    proxy.when(
        |request| request.lease_action() == Some("renew"),
        Fault::DropAfter,
    );
    let client = Client::new(proxy.addr());
    client.expect_still_served();
    client.send("PUT /b HTTP/1.1\r\nX-Ms-Lease-Action: renew\r\n\r\n");
    client.expect_end();
    let client = Client::new(proxy.addr());
    client.send("PUT /b HTTP/1.1\r\nX-Ms-Lease-Action: renew\r\n\r\n");
    client.expect("HTTP/1.1 200 OK");
    let renewals = proxy.wait_for(2, |seen| seen.lease_action() == Some("renew"), LONG);
    assert!(matches!(renewals[0].fault, Fault::DropAfter));
    assert!(matches!(renewals[1].fault, Fault::Pass));
    assert_eq!(proxy.seen()[0].method, "GET");
    assert_eq!(proxy.seen()[0].target, "/a");
}

#[test]
fn a_standing_fault_holds_until_it_is_taken_back() {
    let service = Service::start();
    let proxy = FaultProxy::start(service.addr);
    let forbidden = String::from_utf8(proxy::forbidden("AuthenticationFailed")).unwrap();
    let busy = String::from_utf8(proxy::server_busy(None)).unwrap();
    let client = Client::new(proxy.addr());

    proxy.always(Some(Fault::Answer(forbidden.clone().into_bytes())));
    proxy.always_when(
        |request| request.method == "PUT",
        Fault::Answer(busy.clone().into_bytes()),
    );
    proxy.push(Fault::Pass);
    client.expect_still_served();
    for _ in 0..2 {
        client.send(GET);
        client.expect(&forbidden);
        client.send("PUT /a HTTP/1.1\r\n\r\n");
        client.expect(&busy);
    }
    proxy.always(None);
    client.expect_still_served();

    proxy.push(Fault::DropBefore);
    proxy.always(Some(Fault::DropBefore));
    proxy.clear();
    client.expect_still_served();
}

#[test]
#[should_panic(expected = "0 of 1 requests matched")]
fn waiting_for_what_does_not_come_panics() {
    let (_service, proxy, client) = sent_with(Fault::Pass);
    client.expect(GOT);
    proxy.wait_for(1, |seen| seen.method == "PUT", Duration::from_millis(1));
}

#[test]
fn an_error_reply_has_the_form_of_the_service() {
    let reply = proxy::error_reply(409, "LeaseAlreadyPresent", "Present.", &[("a", "b")]);
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 409 Present.\r\n"), "{head}");
    assert!(head.contains("\r\nx-ms-error-code: LeaseAlreadyPresent\r\n"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    assert!(head.ends_with("\r\na: b"));
    assert!(body.starts_with("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error>"));
    assert!(body.contains("<Code>LeaseAlreadyPresent</Code><Message>Present.\nRequestId:"));
}

#[test]
fn the_azurite_lock_names_no_download_addresses() {
    let lock = include_str!("../azurite/package-lock.json");
    assert!(lock.contains("\"integrity\": \"sha512-"));
    assert!(!lock.contains("\"resolved\""));
}

/// What any service answers to a request without authorization.
fn list_containers(addr: SocketAddr) -> String {
    let client = Client::new(addr);
    client.send(&format!(
        "GET /devstoreaccount1?comp=list HTTP/1.1\r\nHost: {addr}\r\n\
         x-ms-version: 2025-11-05\r\nConnection: close\r\n\r\n"
    ));
    let mut reply = String::new();
    (&client.0).read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn azurite_answers_in_the_pinned_version() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let reply = list_containers(azurite.addr());
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    let (_, version) = include_str!("../azurite/package.json")
        .split_once("\"azurite\": \"")
        .unwrap();
    let (version, _) = version.split_once('"').unwrap();
    let server = format!("\r\nServer: Azurite-Blob/{version}\r\n");
    assert!(reply.contains(&server), "{reply}");
    assert!(reply.contains("x-ms-error-code: AuthorizationFailure\r\n"));
    let endpoint = format!("http://{}/devstoreaccount1", azurite.addr());
    assert_eq!(azurite.endpoint(), endpoint);
    let connection_string = azurite.connection_string();
    assert!(connection_string.contains(&format!("BlobEndpoint={endpoint};")));
}

#[test]
fn azurite_answers_through_the_proxy() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let proxy = FaultProxy::start(azurite.addr());
    let reply = list_containers(proxy.addr());
    assert!(reply.contains("x-ms-error-code: AuthorizationFailure\r\n"));
    assert_eq!(outcome(&proxy), (Some(403), Some(403)));
    let endpoint = format!("http://{}/devstoreaccount1", proxy.addr());
    assert_eq!(proxy.endpoint(), endpoint);
    assert!(proxy.connection_string().contains(&endpoint));
}

/// Runs itself in another process, which starts Azurite and is killed.
#[test]
fn azurite_ends_with_a_test_process_that_is_killed() {
    const NAME: &str = "support_tests::azurite_ends_with_a_test_process_that_is_killed";
    const VICTIM: &str = "AZMUTEX_IT_VICTIM";
    if std::env::var_os(VICTIM).is_some() {
        let azurite = Azurite::start_with(&[]).expect("it started here before");
        println!("\nazurite: {}", azurite.addr());
        // Waits to be killed.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        return;
    }
    if Azurite::shared().is_none() {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let addr: SocketAddr = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("azurite: ")?.parse().ok())
        .expect("the other process started azurite");
    let first = Client::new(addr);
    victim.kill().unwrap();
    victim.wait().unwrap();
    // An open connection tells when the server ends. It may go before the listener does, which
    // then takes another that ends likewise.
    let mut connected = Ok(first.0);
    while let Ok(connection) = connected {
        connection.set_read_timeout(Some(LONG)).unwrap();
        let read = (&connection).read(&mut [0]);
        let timed_out = read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!timed_out, "azurite outlived the process that started it");
        connected = TcpStream::connect(addr);
    }
}
