use std::time::Duration;

use crate::azure::client::Client;
use crate::error::Error;
use crate::lock::acquire::until_answered;

/// The operations of one container, each sent until it is answered or its time is over.
#[derive(Debug)]
pub(crate) struct Operations {
    pub(crate) client: Client,
    pub(crate) request_timeout: Duration,
    pub(crate) create_missing: bool,
}

impl Operations {
    pub(crate) fn until_answered<T>(
        &self,
        send: impl FnMut(Duration, bool) -> Result<T, Error>,
    ) -> Result<T, Error> {
        until_answered(self.request_timeout, send)
    }
}
