//! What the shipped machine is told of a reply: as `azure::client` reads it.

use std::sync::LazyLock;

use crate::error::{Error, ErrorKind, LossReason, Phase};
use crate::lease::step::{Answer, Metadata, Request as Ask};
use crate::service::{Id, Reply};

/// `id`: whose reply it is. `None` is no reply.
pub(crate) fn answer(ask: &Ask, id: Id, reply: Option<Reply>) -> Result<Answer, Error> {
    let errors = &*ERRORS;
    let error = match (ask, reply) {
        (_, None) => &errors.silence,
        (_, Some(Reply::Busy)) => &errors.busy,
        (Ask::Acquire, Some(Reply::Leased { id: named, .. })) => {
            if named == id {
                return Ok(Answer::Granted { metadata: None });
            }
            &errors.senseless
        }
        (Ask::Acquire, Some(Reply::NotFound)) => &errors.missing,
        (Ask::Acquire, Some(_)) => &errors.contended,
        (Ask::Renew, Some(Reply::Leased { id: named, .. })) => {
            if named == id {
                return Ok(Answer::Done);
            }
            &errors.taken
        }
        (Ask::ReadHolder | Ask::CreateContainer | Ask::CreateBlob, Some(_)) => {
            return Ok(Answer::Done);
        }
        (_, Some(Reply::Found { etag, token })) => {
            return Ok(Answer::Metadata(Metadata {
                etag: etag.to_string(),
                token,
                wall: 0,
            }));
        }
        (_, Some(Reply::Stored { etag })) => {
            let etag = etag.to_string();
            return Ok(Answer::Written { etag });
        }
        (_, Some(Reply::Done | Reply::Changed { .. })) => return Ok(Answer::Done),
        (_, Some(Reply::Created { .. } | Reply::Leased { .. })) => return Ok(Answer::Done),
        (_, Some(Reply::NotYours)) => &errors.taken,
        (_, Some(Reply::Broken)) => &errors.broken,
        (_, Some(Reply::NotFound)) => &errors.deleted,
        (_, Some(Reply::ConditionNotMet)) => &errors.changed,
    };
    Err(error.clone())
}

struct Errors {
    silence: Error,
    busy: Error,
    senseless: Error,
    contended: Error,
    missing: Error,
    taken: Error,
    broken: Error,
    deleted: Error,
    changed: Error,
}

static ERRORS: LazyLock<Errors> = LazyLock::new(|| {
    let refused = |kind, status, code: &str| {
        Error::new(kind, "").with_reply(status, Some(code.to_owned()), None, None)
    };
    Errors {
        silence: Error::transport("no reply in time", Phase::Reply),
        busy: refused(ErrorKind::Throttled, 503, "ServerBusy"),
        senseless: Error::new(ErrorKind::Protocol, "the reply names another lease ID"),
        contended: refused(ErrorKind::WouldBlock, 409, "LeaseAlreadyPresent"),
        missing: refused(ErrorKind::NotFound, 404, "BlobNotFound"),
        taken: Error::lost(LossReason::Taken),
        broken: Error::lost(LossReason::Broken),
        deleted: Error::lost(LossReason::Deleted),
        changed: refused(ErrorKind::Protocol, 412, "ConditionNotMet"),
    }
});
