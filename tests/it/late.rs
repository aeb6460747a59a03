//! Requests that arrive after later ones of the same client.

use std::net::SocketAddr;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, MutexOptions};

use crate::support::azurite::Azurite;
use crate::support::proxy::{Fault, FaultProxy, RequestHead};

fn is_content_write(request: &RequestHead) -> bool {
    request.method == "PUT" && request.header("if-match").is_some() && !request.target.contains('?')
}

fn on_each_service(run: impl Fn(&FaultProxy, Locker)) {
    let emulator = Emulator::start().unwrap();
    let address = |endpoint: &str| -> SocketAddr {
        let authority = endpoint.split('/').nth(2).unwrap();
        authority.parse().unwrap()
    };
    let azurite = Azurite::shared().map(Azurite::addr);
    for service in [Some(address(&emulator.endpoint())), azurite] {
        let Some(service) = service else { continue };
        for fencing in [false, true] {
            let proxy = FaultProxy::start(service);
            let options =
                MutexOptions::from_connection_string(&proxy.connection_string(), "late").unwrap();
            let mutex = AzureMutex::new(options.request_timeout(Duration::from_secs(1))).unwrap();
            let locker = Locker::builder(mutex, "late").fencing(fencing);
            run(&proxy, locker.build().unwrap());
        }
    }
}

#[test]
fn late_copy_of_a_guarded_write_does_not_undo_a_later_one() {
    on_each_service(|proxy, locker| {
        let guard = locker.lock().unwrap();
        for fault in [Fault::Duplicate, Fault::Defer] {
            proxy.when(is_content_write, fault);
            guard.write(b"earlier").unwrap();
            guard.write(b"later").unwrap();
            let statuses: Vec<_> = proxy
                .deliver_late()
                .iter()
                .map(|late| late.status)
                .collect();
            assert_eq!(statuses, [412]);
            assert_eq!(guard.read().unwrap(), b"later");
        }
        guard.check().unwrap();
    });
}

#[test]
fn guarded_write_whose_answer_was_lost_is_found_to_be_done() {
    on_each_service(|proxy, locker| {
        let guard = locker.lock().unwrap();
        for value in [&b"one"[..], b"two"] {
            proxy.when(is_content_write, Fault::DropAfter);
            guard.write(value).unwrap();
            assert_eq!(guard.read().unwrap(), value);
        }
    });
}

#[test]
fn guarded_write_replaces_one_that_arrived_after_it_was_given_up() {
    on_each_service(|proxy, locker| {
        let guard = locker.lock().unwrap();
        guard.write(b"first").unwrap();
        proxy.always_when(is_content_write, Fault::Defer);
        guard.write(b"given up").unwrap_err();
        proxy.clear();
        assert_eq!(guard.read().unwrap(), b"first");
        assert!(proxy.deliver_late().iter().any(|late| late.status == 201));
        guard.write(b"last").unwrap();
        assert_eq!(guard.read().unwrap(), b"last");
    });
}
