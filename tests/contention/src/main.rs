//! Prints the table of `azmutex_contention`, with `--peers` what `benches/peers` needs of it, or
//! draws its chart into the file that is named.

use std::env;
use std::fs;
use std::io;

fn main() -> io::Result<()> {
    match env::args_os().nth(1) {
        Some(option) if option == "--peers" => {
            print!("{}", azmutex_contention::peers());
            Ok(())
        }
        Some(path) => fs::write(path, azmutex_contention::chart()),
        None => {
            print!("{}", azmutex_contention::table());
            Ok(())
        }
    }
}
