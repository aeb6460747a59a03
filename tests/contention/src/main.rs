//! Prints the table of `azmutex_contention`, or draws its chart into the file that is named.

use std::env;
use std::fs;
use std::io;

fn main() -> io::Result<()> {
    match env::args_os().nth(1) {
        Some(path) => fs::write(path, azmutex_contention::chart()),
        None => {
            print!("{}", azmutex_contention::table());
            Ok(())
        }
    }
}
