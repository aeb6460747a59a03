//! Which states are the same.

use std::hash::{Hash, Hasher};

use super::{Errand, Phase, Seen, State};
use crate::client::{Rate, Request, View};
use crate::service::{Id, Reply};
use crate::world::hash_of;

/// Two states are the same if nothing that can follow differs.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let seen = |&(by, flip): &(u8, usize)| hash_of(|hasher| self.hash_seen(by, flip, hasher));
        self.alike.iter().map(seen).min().hash(hasher);
        (self.now % Rate::PERIOD).hash(hasher);
        self.left.hash(hasher);
        let Seen {
            done,
            again,
            unheld,
            late_record,
            unreleased,
        } = self.seen;
        done.map(|done| self.age(done)).hash(hasher);
        (again, unheld, late_record, unreleased).hash(hasher);
    }
}

/// By what can follow, as the checker tells states apart.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        hash_of(|hasher| self.hash(hasher)) == hash_of(|hasher| other.hash(hasher))
    }
}

impl State {
    /// How long ago something was, as far as it matters: no period is longer.
    fn age(&self, then: u8) -> u8 {
        self.now.saturating_sub(then).min(self.period)
    }

    /// `by`, `flip`: the process and the blob that come first.
    fn hash_seen(&self, by: u8, flip: usize, hasher: &mut impl Hasher) {
        for place in 0..self.services.len() {
            let blob = place ^ flip;
            let (mut tokens, mut etags, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            let service = &self.services[blob];
            service.known(&mut tokens, &mut etags, &mut ids);
            let used: Vec<Id> = self.processes.iter().map(|p| p.clients[blob].id).collect();
            ids.extend(&used);
            for process in &self.processes {
                process.clients[blob].known(&mut tokens, &mut etags);
                if let Some(Errand { request, reply }) = &process.errand {
                    request.known(&mut tokens, &mut etags);
                    if let Some((Reply::Found { etag, token }, _)) = reply {
                        etags.push(*etag);
                        tokens.extend(token);
                    }
                }
                if let Phase::Works { etag } = process.phase {
                    etags.push(etag);
                }
            }
            for request in &self.network {
                request.known(&mut tokens, &mut etags);
                ids.push(request.id);
            }
            tokens.sort_unstable();
            tokens.dedup();
            etags.sort_unstable();
            etags.dedup();
            ids.sort_unstable();
            ids.dedup();
            let view = |by: u8| View {
                now: self.now,
                tenure: service.tenure(),
                tokens: &tokens,
                etags: &etags,
                ids: &ids,
                used: &used,
                by,
                failures: self.left.losses > 0,
                hand_overs: false,
            };
            service.hash(&view(by), hasher);
            service
                .token()
                .map(|done| self.age(done as u8))
                .hash(hasher);
            for place in 0..self.processes.len() {
                let p = place ^ usize::from(by);
                let process = &self.processes[p];
                process.clients[blob].hash(&view(p as u8), hasher);
                if blob > 0 {
                    continue;
                }
                process.left.hash(hasher);
                process.phase.seen(flip, &view(p as u8)).hash(hasher);
                process.errand.is_some().hash(hasher);
                if let Some(Errand { request, reply }) = &process.errand {
                    self.hash_request(request, &view(p as u8), hasher);
                    reply.is_some().hash(hasher);
                    match reply {
                        Some((Reply::Found { etag, token }, date)) => {
                            let age = |done: i64| date.saturating_sub(done as u8);
                            let done = token.map(|done| age(done).min(self.period));
                            (view(p as u8).etag(*etag), done).hash(hasher);
                        }
                        Some((Reply::Stored { .. }, _)) => 1.hash(hasher),
                        Some((other, _)) => other.hash(hasher),
                        None => {}
                    }
                }
            }
            if blob == 0 {
                for request in &self.network {
                    self.hash_request(request, &view(by), hasher);
                }
            }
        }
    }

    fn hash_request(&self, request: &Request, view: &View<'_>, hasher: &mut impl Hasher) {
        request.hash(view, hasher);
        request
            .token()
            .map(|done| self.age(done as u8))
            .hash(hasher);
    }
}

impl Phase {
    /// As it is seen if the blobs change places.
    fn seen(self, flip: usize, view: &View<'_>) -> (Self, usize) {
        let phase = match self {
            Self::Probes { blob, asked } => Self::Probes {
                blob: blob ^ flip,
                asked,
            },
            Self::Rests { first } => Self::Rests {
                first: first ^ flip,
            },
            Self::Waits { first } => Self::Waits {
                first: first ^ flip,
            },
            Self::Tries { first, blob } => Self::Tries {
                first: first ^ flip,
                blob: blob ^ flip,
            },
            Self::Releases { next } => Self::Releases {
                next: next.map(|next| next ^ flip),
            },
            Self::Works { etag } => return (Self::Works { etag: 0 }, view.etag(etag)),
            phase => phase,
        };
        (phase, 0)
    }
}
