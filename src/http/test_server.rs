//! A loopback server for tests, which answers each request as it is told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// What the server does with a request.
pub(crate) enum Answer {
    /// Sends these bytes and keeps the connection.
    Reply(String),
    /// Closes the connection.
    Close,
    /// Sends nothing and keeps the connection.
    Silence,
}

/// A reply with a body, framed by its length.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Reply(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// Gets the number of the connection, from 0 on, and the request: its head, and if it has a body, an
/// empty line and that.
type Script = dyn Fn(usize, &str) -> Answer + Send + Sync;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

impl Server {
    pub(crate) fn start(script: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            connections: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if server.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let number = {
                    let mut connections = server.connections.lock();
                    connections.push(stream.try_clone().unwrap());
                    connections.len() - 1
                };
                let server = Arc::clone(&server);
                serving.push(thread::spawn(move || server.serve(number, &stream)));
            }
            for connection in &*server.connections.lock() {
                let _ = connection.shutdown(Shutdown::Both);
            }
            for thread in serving {
                thread.join().unwrap();
            }
        });
        Self {
            addr,
            shared,
            accepting: Some(accepting),
        }
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.lock().len()
    }
}

impl Shared {
    fn serve(&self, number: usize, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_request(&mut reader) {
            match (self.script)(number, &head) {
                Answer::Reply(text) => {
                    // It fails if the client has gone, as it may.
                    let _ = (&*stream).write_all(text.as_bytes());
                }
                Answer::Close => break,
                Answer::Silence => (),
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if !body.is_empty() {
        head.push_str("\r\n");
        head.push_str(&String::from_utf8_lossy(&body));
    }
    Some(head)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}
