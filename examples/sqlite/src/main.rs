//! A database that refuses the work of a holder that is too late.
//!
//! ```text
//! cargo run --manifest-path examples/sqlite/Cargo.toml
//! ```
//!
//! Holder A is stopped for longer than its lease lasts, and cannot know it: when it continues, it
//! still believes that it holds the lock, but by then B does. The database refuses A's smaller
//! fencing token, and the lock blob refuses A's lease ID, so A cannot overwrite B's work.
//!
//! Exits with 0 only if both refused.

use std::error::Error;
use std::time::Duration;

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, ErrorKind, LeaseGuard, Locker, MutexOptions};
use rusqlite::Connection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let database = Connection::open_in_memory()?;
    database.execute_batch(
        "CREATE TABLE report (id INTEGER PRIMARY KEY, text TEXT NOT NULL, fence INTEGER NOT NULL);
         INSERT INTO report VALUES (1, 'nothing', 0);",
    )?;
    let emulator = Emulator::start()?;

    // A clock that stands still: this holder does not notice the time that passes.
    let a = lock(emulator.options("locks")?.clock(Clock::frozen()), "A")?;
    emulator.clock().advance(Duration::from_secs(60)); // the lease runs out
    let b = lock(emulator.options("locks")?, "B")?;
    if a.fencing_token() >= b.fencing_token() {
        return Err("the later holder's token is not the greater one".into());
    }
    assert_rows(save(&database, &b, "B's report")?, 1)?;
    b.write(b"B was here")?;

    println!("A goes on; is_held answers {}", a.is_held());
    assert_rows(save(&database, &a, "A's report")?, 0)?;
    match a.write(b"A was here") {
        Err(error) if error.kind() == ErrorKind::LeaseLost => println!("{error}"),
        other => return Err(format!("A's write came to {other:?}").into()),
    }
    println!("A knows now; is_held answers {}", a.is_held());

    let text: String = database.query_row("SELECT text FROM report", (), |row| row.get(0))?;
    if text != "B's report" || b.read()? != b"B was here" || a.is_held() {
        return Err("B's work was overwritten".into());
    }
    println!("what is left is {text}");
    Ok(())
}

fn lock(options: MutexOptions, owner: &str) -> Result<LeaseGuard> {
    let locker = Locker::builder(AzureMutex::new(options)?, "report")
        .owner(owner)
        .fencing(true)
        .build()?;
    Ok(locker.lock()?)
}

/// Saves `text`, unless a holder with a greater token has saved already. Returns how many rows
/// changed.
fn save(database: &Connection, guard: &LeaseGuard, text: &str) -> Result<usize> {
    let fence = guard.fencing_token().ok_or("fencing is off")?;
    let rows = database.execute(
        // `<=` for a holder that saves more than once
        "UPDATE report SET text = ?1, fence = ?2 WHERE id = 1 AND fence < ?2",
        (text, fence),
    )?;
    println!("{text} with token {fence}: {rows} rows changed");
    Ok(rows)
}

fn assert_rows(changed: usize, wanted: usize) -> Result<()> {
    if changed == wanted {
        return Ok(());
    }
    Err(format!("{changed} rows changed instead of {wanted}").into())
}
