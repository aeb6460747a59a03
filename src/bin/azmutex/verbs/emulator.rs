//! `azmutex emulator`: an emulator that several processes share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;

use super::Outcome;
use crate::args::{EmulatorArgs, Global};
use crate::exit::Code;
use crate::output::{Failure, Object, print_line, say};
use crate::signals;
use crate::stdin::{self, Stdin};

/// A year.
const SAS_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

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
    for token in &args.bearer {
        emulator.expect_bearer(token.as_str());
    }
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

    // The key in it is the published one of every emulator: neither it nor what it signs is secret.
    let sas = args.sas.then(|| emulator.sas(SAS_LIFETIME));
    let endpoint = emulator.endpoint();
    let connection = match &sas {
        Some(sas) => format!("BlobEndpoint={endpoint};SharedAccessSignature={sas}"),
        None => emulator.connection_string(),
    };
    if global.json {
        let mut object = Object::event("serving")
            .text("endpoint", &endpoint)
            .text("account", emulator.account())
            .exact("connection_string", &connection);
        if let Some(sas) = &sas {
            object = object.exact("sas", sas);
        }
        print_line(&object.to_string());
    } else {
        print_line(&format!(
            "export AZURE_STORAGE_CONNECTION_STRING='{connection}'"
        ));
        if !global.quiet {
            say(&format!(
                "serving {endpoint} until stdin ends or Ctrl-C; paste the line above into other \
                 terminals"
            ));
        }
    }
    let _ = ended.recv();
    Ok(Code::Done)
}
