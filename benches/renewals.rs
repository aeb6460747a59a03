//! Whether guards that are taken together renew together: 1,000 guards, on a clock that the
//! benchmark advances.
//!
//! ```text
//! cargo bench --bench renewals
//! ```
//!
//! Reports, for each round of renewals, the largest share that falls into one quarter of a second.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, Event, Locker};

use support::{CONTAINER, Result, role, verdict};

const GUARDS: usize = 1000;
/// How many renewals of each guard to look at. The third follows two others.
const ROUNDS: usize = 3;
const SLOT: Duration = Duration::from_millis(250);
const STEP: Duration = Duration::from_millis(50);
/// For three rounds, 20 seconds each at most.
const STEPS: u32 = 61 * 20;
const TARGET: f64 = 0.1;

fn main() -> Result<()> {
    role()?;
    let clock = Clock::frozen();
    let emulator = Emulator::builder().clock(clock.clone()).start()?;
    let mutex = AzureMutex::new(emulator.options(CONTAINER)?)?;
    let renewals = Arc::new(Mutex::new(vec![Vec::new(); GUARDS]));
    let mut guards = Vec::with_capacity(GUARDS);
    for number in 0..GUARDS {
        let (clock, renewals) = (clock.clone(), Arc::clone(&renewals));
        let locker = Locker::builder(mutex.clone(), &format!("key-{number}"))
            .holder_info(false)
            .observer(move |event| {
                if let (Event::Renewed, Ok(mut renewals)) = (event, renewals.lock()) {
                    renewals[number].push(clock.elapsed());
                }
            });
        guards.push(locker.build()?.lock()?);
    }
    for _ in 0..STEPS {
        clock.advance(STEP);
    }
    let held = guards.iter().filter(|guard| guard.is_held()).count();
    println!("held: {held} of {GUARDS} (must be all)");

    let renewals = renewals.lock().map_err(|_| "an observer panicked")?;
    for round in 0..ROUNDS {
        let mut slots: BTreeMap<u128, usize> = BTreeMap::new();
        let times = renewals.iter().filter_map(|times| times.get(round));
        for time in times {
            *slots
                .entry(time.as_millis() / SLOT.as_millis())
                .or_default() += 1;
        }
        let count: usize = slots.values().sum();
        let share = slots
            .values()
            .max()
            .map_or(0.0, |most| *most as f64 / count as f64);
        print!(
            "renewal {}: {count} in {} slots of {SLOT:?}, {:.1} % in the fullest",
            round + 1,
            slots.len(),
            100.0 * share
        );
        match round {
            2 => println!(
                " (target: at most {} %: {})",
                100.0 * TARGET,
                verdict(share <= TARGET)
            ),
            _ => println!(),
        }
    }
    if held < GUARDS {
        return Err("guards were lost".into());
    }
    Ok(())
}
