use std::sync::Arc;

use super::operations::Operations;
use crate::azure::status::LeaseStatus;
use crate::error::Error;

/// The lock blobs of a container. Made by [`crate::AzureMutex::list`].
#[derive(Debug)]
#[must_use = "iterators are lazy"]
pub struct Locks {
    operations: Arc<Operations>,
    prefix: String,
    page: std::vec::IntoIter<LeaseStatus>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    Page(String),
    End,
}

impl Locks {
    pub(super) fn new(operations: Arc<Operations>, prefix: &str) -> Self {
        Self {
            operations,
            prefix: prefix.to_owned(),
            page: Vec::new().into_iter(),
            next: Next::First,
        }
    }
}

impl Iterator for Locks {
    type Item = Result<LeaseStatus, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // A page may be empty and still not be the last.
        loop {
            if let Some(status) = self.page.next() {
                return Some(Ok(status));
            }
            let marker = match &self.next {
                Next::First => None,
                Next::Page(marker) => Some(marker.clone()),
                Next::End => return None,
            };
            let operations = &self.operations;
            let page = operations.until_answered(|timeout| {
                operations
                    .client
                    .list(&self.prefix, marker.as_deref(), timeout)
            });
            match page {
                Ok(page) => {
                    self.next = match page.next {
                        // A marker that repeats would never end.
                        Some(next) if Some(&next) != marker.as_ref() => Next::Page(next),
                        _ => Next::End,
                    };
                    self.page = page.blobs.into_iter();
                }
                Err(error) => {
                    self.next = Next::End;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Locks {}
