//! `azmutex elect --who` and `--observe`: who leads.

use azmutex::{LeaderInfo, Locker};

use super::Outcome;
use crate::args::{Create, ElectArgs, Global};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Object, clean, holder_object, print_line};

pub(crate) fn look(args: &ElectArgs, global: &Global) -> Outcome {
    let waiting = &args.run.waiting;
    let config = Config::load_within(global, waiting.patience(global))?;
    let lock = config.lock(&args.run.lock, Create::Never)?;
    let election = Locker::builder(lock.mutex.clone(), &lock.key)
        .fault_wait(waiting.retry_time())
        .build_election()?;
    if args.who {
        let leader = election.leader()?;
        show(leader.as_ref(), &lock, global);
        return Ok(if leader.is_some() {
            Code::Done
        } else {
            Code::False
        });
    }
    // Until a signal ends it, or nobody reads any more.
    for leader in election.observe(waiting.poll) {
        show(leader?.as_ref(), &lock, global);
    }
    Ok(Code::Done)
}

fn show(leader: Option<&LeaderInfo>, lock: &Lock, global: &Global) {
    if global.json {
        print_line(&object(leader, lock).to_string());
        return;
    }
    let leader = leader.map_or("no leader".to_owned(), LeaderInfo::to_string);
    print_line(&format!("{}: {}", lock.name, clean(&leader)));
}

fn object(leader: Option<&LeaderInfo>, lock: &Lock) -> Object {
    let holder = leader.and_then(LeaderInfo::holder).map(holder_object);
    Object::event("leader")
        .exact("lock", &lock.key)
        .exact("url", &lock.url)
        .bool("led", leader.is_some())
        .maybe_object("leader", holder)
        .maybe_number("term", leader.map(LeaderInfo::term))
}
