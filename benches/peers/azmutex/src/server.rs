//! The emulator, 2 ms away. Prints its endpoint and a SAS, and answers each line of input with the
//! number of requests so far.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;

const ROUND_TRIP: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    let endpoint = emulator.endpoint();
    let behind = endpoint.split('/').nth(2).ok_or("no host")?.to_owned();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let front = listener.local_addr()?.to_string();
    let sas = emulator.sas(Duration::from_secs(24 * 3600));
    println!("{} {sas}", endpoint.replace(&behind, &front));
    thread::spawn(move || {
        for client in listener.incoming() {
            if let Err(error) = client.and_then(|client| forward(client, &behind)) {
                eprintln!("a connection was not forwarded: {error}");
            }
        }
    });
    for line in io::stdin().lines() {
        line?;
        println!("{}", emulator.requests());
    }
    Ok(())
}

fn forward(client: TcpStream, behind: &str) -> io::Result<()> {
    let server = TcpStream::connect(behind)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pass(from_client, server));
    thread::spawn(move || pass(from_server, client));
    Ok(())
}

/// Passes bytes on, half a round trip later, until either side closes.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        thread::sleep(ROUND_TRIP / 2);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
