//! PURE: what azmutex and the guardian tell each other, in records of 16 bytes.

use std::time::Duration;

use crate::run::status::Status;

/// The length of a record: short enough for a pipe to take it whole or not at all.
pub(super) const LENGTH: usize = 16;

/// What azmutex tells the guardian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By when the whole command must be gone: a time since boot.
    Deadline(Duration),
    /// The status of the command's first process is no longer needed, nor its ID.
    Reap,
    /// There is nothing left to guard.
    Leave,
}

/// What the guardian tells azmutex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum Report {
    /// The command runs again.
    Running,
    /// The command is stopped by this signal.
    Stopped(i32),
    /// The command's first process has ended.
    Ended(Status),
    /// Whether there are other processes of the command, once the first was reaped.
    Others(bool),
}

impl Order {
    pub(super) fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Deadline(at) => encode(1, u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
            Self::Reap => encode(2, 0),
            Self::Leave => encode(3, 0),
        }
    }

    pub(super) fn decode(record: &[u8; LENGTH]) -> Option<Self> {
        match decode(record) {
            (1, nanos) => Some(Self::Deadline(Duration::from_nanos(nanos))),
            (2, _) => Some(Self::Reap),
            (3, _) => Some(Self::Leave),
            _ => None,
        }
    }
}

impl Report {
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        allow(dead_code, reason = "there a guardian has nothing to report")
    )]
    pub(super) fn encode(self) -> [u8; LENGTH] {
        let number = |number: i32| u64::from(number.cast_unsigned());
        match self {
            Self::Running => encode(1, 0),
            Self::Stopped(signal) => encode(2, number(signal)),
            Self::Ended(Status::Exited(code)) => encode(3, number(code)),
            Self::Ended(Status::Killed { signal, dumped }) => {
                encode(if dumped { 5 } else { 4 }, number(signal))
            }
            Self::Others(any) => encode(6, u64::from(any)),
        }
    }

    pub(super) fn decode(record: &[u8; LENGTH]) -> Option<Self> {
        let (kind, value) = decode(record);
        let number = u32::try_from(value).ok()?.cast_signed();
        Some(match kind {
            1 => Self::Running,
            2 => Self::Stopped(number),
            3 => Self::Ended(Status::Exited(number)),
            4 | 5 => Self::Ended(Status::Killed {
                signal: number,
                dumped: kind == 5,
            }),
            6 => Self::Others(value != 0),
            _ => return None,
        })
    }
}

fn encode(kind: u64, value: u64) -> [u8; LENGTH] {
    let mut record = [0; LENGTH];
    record[..8].copy_from_slice(&kind.to_le_bytes());
    record[8..].copy_from_slice(&value.to_le_bytes());
    record
}

fn decode(record: &[u8; LENGTH]) -> (u64, u64) {
    let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
    (number(&record[..8]), number(&record[8..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        for order in [
            Order::Deadline(Duration::new(7, 5)),
            Order::Reap,
            Order::Leave,
        ] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let killed = |dumped| Report::Ended(Status::Killed { signal: 9, dumped });
        for report in [
            Report::Running,
            Report::Stopped(20),
            Report::Ended(Status::Exited(-3)),
            killed(false),
            killed(true),
            Report::Others(true),
            Report::Others(false),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Order::decode(&[0; LENGTH]), None);
        assert_eq!(Report::decode(&[0xff; LENGTH]), None);
    }
}
