//! `azmutex emulator`: an emulator that several processes share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use azmutex::emulator::Emulator;

use super::Outcome;
use crate::args::{EmulatorArgs, Global};
use crate::exit::Code;
use crate::output::{Failure, Object, print_line, say};
use crate::signals;
use crate::stdin::{self, Stdin};

pub(crate) fn emulator(args: &EmulatorArgs, global: &Global) -> Outcome {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let emulator =
        Emulator::builder()
            .bind(address)
            .start()
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Failure::usage(
                    format!("--port {}: cannot listen there: {error}", args.port),
                )
                .hint("leave it out for a free one"),
                _ => Failure::new(Code::Bug, format!("cannot start the emulator: {error}")),
            })?;
    let (sender, ended) = mpsc::channel();
    let on_signal = sender.clone();
    signals::watch(move |_| {
        let _ = on_signal.send(());
    })
    .and_then(|()| {
        // On a terminal, Ctrl-C ends it, and reading would stop a process in the background.
        if Stdin::look() != Stdin::Other {
            return Ok(());
        }
        thread::Builder::new()
            .name("azmutex-stdin".to_owned())
            .spawn(move || {
                stdin::drain();
                let _ = sender.send(());
            })
            .map(drop)
    })
    .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for the end: {error}")))?;

    // The key in it is the published one of every emulator: no secret.
    let connection = emulator.connection_string();
    if global.json {
        let object = Object::event("serving")
            .text("endpoint", &emulator.endpoint())
            .text("account", emulator.account())
            .exact("connection_string", &connection);
        print_line(&object.to_string());
    } else {
        print_line(&format!(
            "export AZURE_STORAGE_CONNECTION_STRING='{connection}'"
        ));
        if !global.quiet {
            say(&format!(
                "serving {} until stdin ends or Ctrl-C; paste the line above into other terminals",
                emulator.endpoint()
            ));
        }
    }
    let _ = ended.recv();
    Ok(Code::Done)
}
