//! `--dry-run`: what would be done.

use azmutex::{Done, LeaseStatus, Locker, Semaphore};

use super::{End, Plan, by_and_at};
use crate::config::Lock;
use crate::output::{Failure, Object, clean, holder_object, print_line};
use crate::run::budget::Budget;
use crate::run::terminal::{Group, Place};
use crate::times::{rfc3339, short};

impl Plan<'_> {
    /// Prints what would be done.
    pub(super) fn describe(&self) -> Result<End, Failure> {
        let status = self.lock.status()?;
        let others = self.others.iter().map(|other| Ok((other, other.status()?)));
        let others = others.collect::<Result<Vec<_>, Failure>>()?;
        let permits = self.permits(status.as_ref())?;
        let done = self.done()?;
        if self.global.json {
            let object = self.plan(status.as_ref());
            let also: Vec<_> = others
                .iter()
                .map(|(lock, status)| plan_of(Object::new(), lock, status.as_ref()))
                .collect();
            let object = object
                .maybe_number("permits", permits.map(|(permits, _)| permits))
                .maybe_number("permits_held", permits.map(|(_, held)| held))
                .objects("also", &also)
                .time("done_at", done.as_ref().map(Done::at))
                .maybe("done_by", done.as_ref().and_then(Done::by));
            print_line(&object.to_string());
            return Ok(End::Code(0));
        }
        let mut lines = vec![format!("lock     {} ({})", self.lock.name, self.lock.url)];
        match (permits, self.args.slots) {
            (Some((permits, held)), Some(slots)) => {
                let end = match slots {
                    _ if slots == permits => String::new(),
                    _ if self.args.resize => format!("; there would be {slots}"),
                    _ => format!("; --slots {slots} would be refused without --resize"),
                };
                lines.push(format!("permits  {held} of {permits} held{end}"));
            }
            _ => lines.push(format!("state    {}", state(status.as_ref()))),
        }
        for (other, status) in &others {
            lines.push(format!("also     {} ({})", other.name, other.url));
            lines.push(format!("state    {}", state(status.as_ref())));
        }
        match done {
            Some(done) => lines.push(format!("done     {}: it would not run", by_and_at(&done))),
            None if self.once.is_some() => lines.push("done     no: it would run".to_owned()),
            None => {}
        }
        let (kind, from) = self.config.credential();
        let Budget {
            lease,
            renew_every,
            grace,
            margin,
        } = self.budget;
        let wait = match self.args.waiting.limit() {
            None => "until it is free".to_owned(),
            Some(limit) if limit.is_zero() => "not at all".to_owned(),
            Some(limit) => format!("{} at most", short(limit)),
        };
        let group = match Place::find(self.args.process_group) {
            place if place.hands_over() => "its own, in the foreground of the terminal",
            Place {
                group: Group::Own, ..
            } => "its own",
            Place {
                group: Group::Shared,
                ..
            } => "that of azmutex",
            Place {
                group: Group::Session,
                ..
            } => "a session of its own",
        };
        let stop = lease - margin - grace;
        lines.extend([
            format!("auth     {kind}, from {from}"),
            format!("wait     {wait}"),
            format!(
                "lease    {}, renewed every {}",
                short(lease),
                short(renew_every)
            ),
            format!(
                "stop     {} {} after the last renewal that was confirmed, SIGKILL {} later, {} \
                 before the lease ends",
                self.args.signal,
                short(stop),
                short(grace),
                short(margin)
            ),
            format!(
                "command  {}",
                clean(&self.program.file.display().to_string())
            ),
            format!("group    {group}"),
        ]);
        if let Some(command) = self.election.and_then(|one| one.health_cmd.as_deref())
            && let Some(within) = self.health()
        {
            let (command, within) = (clean(command), short(within));
            lines.push(format!("health   {command}: must succeed within {within}"));
        }
        print_line(&lines.join("\n"));
        Ok(End::Code(0))
    }

    /// How many permits there are, and how many of them are held.
    fn permits(&self, status: Option<&LeaseStatus>) -> Result<Option<(u32, usize)>, Failure> {
        let Some(slots) = self.args.slots else {
            return Ok(None);
        };
        let Some(recorded) = status.and_then(LeaseStatus::permits) else {
            return Ok(Some((slots, 0)));
        };
        let semaphore = Semaphore::new(self.lock.mutex.clone(), &self.lock.key, recorded)?;
        Ok(Some((recorded, semaphore.holders()?.len())))
    }

    /// Whether there is nothing to do.
    fn done(&self) -> Result<Option<Done>, Failure> {
        let Some(once) = self.once else {
            return Ok(None);
        };
        let locker = Locker::new(self.lock.mutex.clone(), &self.lock.key)?;
        Ok(locker.done(once.every)?)
    }

    /// The same as an object.
    fn plan(&self, status: Option<&LeaseStatus>) -> Object {
        let (kind, from) = self.config.credential();
        let wait = self.args.waiting.limit();
        let budget = self.budget;
        plan_of(Object::event("plan"), &self.lock, status)
            .text("credential", &format!("{kind}, from {from}"))
            .maybe_number("wait_s", wait.map(|wait| wait.as_secs_f64()))
            .seconds("lease_s", budget.lease)
            .seconds("renew_every_s", budget.renew_every)
            .text("signal", &self.args.signal.to_string())
            .seconds(
                "signal_after_s",
                budget.lease - budget.margin - budget.grace,
            )
            .seconds("kill_after_s", budget.grace)
            .seconds("margin_s", budget.margin)
            .text("command", &self.program.file.display().to_string())
    }
}

/// The state of a lock that is to be acquired, in words.
fn state(status: Option<&LeaseStatus>) -> String {
    let Some(status) = status else {
        return "not there yet; it would be created".to_owned();
    };
    let Some(holder) = status.holder() else {
        return status.state().to_string();
    };
    let since = holder.since();
    let since = since.map_or(String::new(), |at| format!(" since {}", rfc3339(at)));
    let who = clean(&holder.to_string());
    format!("{}, held by {who}{since}", status.state())
}

/// The members of `object` that tell of a lock that is to be acquired.
fn plan_of(object: Object, lock: &Lock, status: Option<&LeaseStatus>) -> Object {
    let state = status.map_or("missing".to_owned(), |status| status.state().to_string());
    let holder = status.and_then(LeaseStatus::holder).map(holder_object);
    object
        .exact("lock", &lock.key)
        .exact("url", &lock.url)
        .text("state", &state)
        .maybe_object("holder", holder)
}
