//! Fencing tokens over a network that loses replies.

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, MutexOptions};

use crate::support::addr_of;
use crate::support::proxy::{Fault, FaultProxy, RequestHead};

#[test]
fn token_that_was_stored_is_handed_out_although_its_answer_was_lost() {
    let emulator = Emulator::start().unwrap();
    let proxy = FaultProxy::start(addr_of(&emulator));
    let options = MutexOptions::from_connection_string(&proxy.connection_string(), "locks");
    let mutex = AzureMutex::new(options.unwrap()).unwrap();
    let locker = Locker::builder(mutex, "migration")
        .fencing(true)
        .build()
        .unwrap();
    let first = locker.lock().unwrap().fencing_token();

    let stores = |request: &RequestHead| request.target.contains("comp=metadata");
    proxy.when(stores, Fault::DropAfter);
    let guard = locker.lock().expect("the first attempt stored the token");
    assert!(guard.fencing_token() > first);
}
