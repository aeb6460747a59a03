//! What the fuzz targets in `fuzz/` feed with arbitrary bytes, and what must hold then.
//!
//! Built for fuzzing and unit tests only. The committed inputs are replayed below.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use ureq::http::{HeaderName, HeaderValue, Uri};

use crate::azure::credential::Credential;
use crate::azure::requests;
use crate::azure::status::LeaseStatus;
use crate::azure::validate::{check_account, check_container, check_key};
use crate::azure::{errors, status};
use crate::entra::identity::TokenIdentity;
use crate::entra::token::{AccessToken, Identity};
use crate::error::LossReason;
use crate::error::{Error, ErrorKind};
use crate::holder::record::{Holder, Record};
use crate::holder::terraform;
use crate::http::message::Reply;
use crate::lease::ids::LeaseId;
use crate::mutex::options::{Endpoint, MutexOptions};
use crate::text::is_invisible;
use crate::time::clock::Clock;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// The secret in the inputs that have one.
const SECRET: &str = "c2VjcmV0";

/// Claims a tenant.
const TOKEN: &str = "e30.eyJ0aWQiOiI3MmY5In0.c2ln";

/// A reply to any operation: a line with the status, the headers, an empty line, the body.
pub fn reply(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.trim().parse().ok());
    // As the transport returns them: names in lower case, values of visible characters.
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = HeaderValue::from_str(value.trim()).ok()?;
        Some((name.to_ascii_lowercase(), value.to_str().ok()?.to_owned()))
    });
    let reply = Reply {
        status: code.unwrap_or(400),
        headers: headers.collect(),
        body: body.to_vec(),
    };

    let token = AccessToken::new(TOKEN, NOW.into()).expect("well-formed");
    let identity = Identity {
        kind: "fuzzed",
        client_id: None,
        tenant_id: None,
        takes_tenant: false,
    };
    let identity = TokenIdentity::of(identity, &token, "audience");
    let used = errors::Used {
        hint: "".into(),
        identity: Some(&identity),
    };
    let refused = errors::read_error(&reply, NOW, &used);
    assert!(!refused.to_string().contains(char::is_control));
    if let Some(claims) = errors::demanded_claims(&reply) {
        assert!(claims.trim_start().starts_with('{'), "{claims}");
    }
    let used = errors::Used {
        identity: None,
        ..used
    };
    let error = errors::read_error(&reply, NOW, &used);
    assert_eq!(
        (refused.kind(), refused.loss_reason()),
        (error.kind(), error.loss_reason())
    );
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 4096 + 2 * head.len(), "{} bytes", text.len());
    let _ = (format!("{error:?}"), error.retry_after());
    let is_lost = error.kind() == ErrorKind::LeaseLost;
    assert_eq!(is_lost, error.loss_reason().is_some());
    // A loss is final: only a code that says so may count as one.
    assert!(!is_lost || error.service_code().is_some());
    assert_ne!(error.loss_reason(), Some(LossReason::Released));
    if let Ok(id) = status::read_lease_id(&reply) {
        assert!(reply.header("x-ms-lease-id").is_some(), "{id}");
    }
    let _ = status::read_lease_time(&reply);
    let found = status::read_status("key", &reply);
    check_status(&found);
    check_record(&status::read_record(&reply));
}

/// The body of a reply to List Blobs.
pub fn page(data: &[u8]) {
    let Ok(page) = status::read_page(data) else {
        return;
    };
    assert!(page.next.is_none_or(|next| !next.is_empty()));
    for blob in page.blobs {
        assert!(blob.etag().starts_with('"'));
        check_status(&blob);
        check_record(&blob.record);
    }
}

/// A connection string.
pub fn connection_string(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match MutexOptions::from_connection_string(&text, "locks") {
        Ok(options) => {
            let _ = options.check();
            let shown = format!("{options:?}");
            // The secret's text may also be in the endpoint or the account, where it is public.
            let public = format!("{} {:?}", options.account, options.endpoint);
            assert!(
                !shown.contains(SECRET) || public.contains(SECRET),
                "{shown}"
            );
            check_endpoint(&options.endpoint);
            check_credential(&options.credential);
        }
        Err(error) => check_refusal(&error),
    }
}

/// A shared access signature.
pub fn sas(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Credential::sas(&text) {
        Ok(credential) => {
            let shown = format!("{credential:?}");
            assert!(!shown.contains(SECRET), "{shown}");
            check_credential(&credential);
        }
        Err(error) => check_refusal(&error),
    }
}

/// A blob endpoint.
pub fn endpoint(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Endpoint::parse(&text) {
        Ok(endpoint) => check_endpoint(&endpoint),
        Err(error) => check_refusal(&error),
    }
}

/// Names: of blobs, containers and accounts, and lease IDs.
pub fn name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = check_account(&text);
    let _ = check_container(&text);
    if let Ok(id) = text.parse::<LeaseId>() {
        assert_eq!(id.to_string().parse::<LeaseId>().ok(), Some(id));
    }
    if check_key(&text).is_err() {
        return;
    }
    let path = requests::blob_path("/account", "locks", &text);
    let sent = path.strip_prefix("/account/locks/").expect("the container");
    assert_eq!(percent_decode_str(sent).decode_utf8(), Ok(text.clone()));
    // What the service sees is what was asked for and signed: nothing in between rewrites it.
    let url: Uri = format!("https://host{path}").parse().expect("a URL");
    assert_eq!((url.path(), url.query()), (&*path, None));
    let mut request = requests::acquire(
        &path,
        LeaseId::random().expect("random numbers"),
        Default::default(),
    );
    let credential = Credential::shared_key("a2V5").expect("a key");
    credential.authorize(&mut request, "account", NOW, None);
    let target = request.target();
    let url: Uri = format!("https://host{}", *target).parse().expect("a URL");
    assert_eq!((url.path(), url.query()), (&*path, Some("comp=lease")));
    #[cfg(feature = "emulator")]
    crate::emulator::fuzzing::check_path(&path, &text);
    // The prefix of a list, and the marker of its next page.
    let list = requests::list_blobs("/locks", &text, Some(&text)).target();
    let url: Uri = format!("https://host{}", *list).parse().expect("a URL");
    for name in ["prefix", "marker"] {
        let pairs = url.query().unwrap_or_default().split('&');
        let value = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(found, _)| *found == name)
            .and_then(|(_, value)| percent_decode_str(value).decode_utf8().ok());
        assert_eq!(value.as_deref(), Some(&*text));
    }
}

/// Metadata: a line `name=value` for each, after the owner and the reason of a holder.
pub fn metadata(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let mut holder = Holder {
        owner: lines.next().map(str::to_owned),
        reason: lines.next().map(str::to_owned),
        ..Holder::unknown()
    };
    // As in the entries of a list, which may have what a header may not.
    let pairs = lines.filter_map(|line| line.split_once('='));
    let record = Record::read(pairs.map(|(name, value)| (name, value.trim())));
    check_record(&record);
    // Another program's lock, as its metadata has it and as plain JSON.
    let foreign = record.other(terraform::NAME).and_then(terraform::read);
    let plain = terraform::read(&STANDARD.encode(data));
    for holder in [foreign, plain].iter().flatten() {
        assert!(!holder.to_string().chars().any(is_invisible), "{holder}");
    }
    let held = record.held_by(holder.clone());
    let (fitted, dropped) = held.clone().fitted();
    assert!(!dropped.to_string().chars().any(char::is_control));
    assert!(fitted.fitted().1.is_empty());
    let metadata = held.metadata();
    let size: usize = metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
    assert!(size <= 8192 && metadata.len() <= 96, "{size} bytes");
    for (name, value) in metadata {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok(), "{name}");
        let value = HeaderValue::from_str(&value).expect("a header");
        assert!(value.to_str().is_ok());
    }
    for (_, value) in Record::default().held_by(holder.clone()).metadata() {
        assert!(value.len() <= 1024, "{} bytes", value.len());
    }
    // A holder's texts are read back as they were written, except for what cannot be shown.
    let read = read_back(&Record::default().held_by(holder.clone()));
    let read = read.holder.expect("a holder");
    for (written, read) in [
        (&mut holder.owner, &read.owner),
        (&mut holder.reason, &read.reason),
    ] {
        let written = written.take().unwrap_or_default();
        let written = written.replace(
            |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'),
            " ",
        );
        let written = written.replace(is_invisible, "");
        let read = read.as_deref().unwrap_or_default();
        assert!(
            written.trim().starts_with(read.trim()),
            "{written:?} {read:?}"
        );
        assert!(written.len() > 300 || written.trim() == read.trim());
    }
}

/// The bytes that come from one connection to the emulator.
#[cfg(feature = "emulator")]
pub use crate::emulator::fuzzing::connection;

/// What is read on the way to a token: replies, programs' output, a challenge, a certificate.
pub use crate::entra::fuzzing::{challenge, pem, token_reply, tool_output};

fn check_refusal(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A free lock has no holder, and what is shown of a holder is safe to show.
fn check_status(status: &LeaseStatus) {
    assert!(status.holder().is_none() || !status.state().is_free());
    assert!(status.holder().is_none() || status.holder() == status.last_holder());
    if let Some(holder) = status.last_holder() {
        assert!(!holder.to_string().chars().any(is_invisible), "{holder}");
    }
}

/// What was read can be written, and is then read as the same.
fn check_record(record: &Record) {
    let again = read_back(record);
    assert_eq!(read_back(&again), again);
    assert_eq!(again.fence, record.fence);
    assert_eq!(again.holder.is_some(), record.holder.is_some());
    let _ = record.as_previous();
    if let Some(holder) = &record.holder {
        assert!(!holder.to_string().chars().any(is_invisible), "{holder}");
    }
}

fn read_back(record: &Record) -> Record {
    let written = record.metadata();
    Record::read(written.iter().map(|(name, value)| (&**name, &**value)))
}

fn check_endpoint(endpoint: &Endpoint) {
    let url = format!("{}{}", endpoint.origin, endpoint.base);
    assert_eq!(Endpoint::parse(&url).ok().as_ref(), Some(endpoint), "{url}");
    let blob: Uri = format!("{url}/locks/key").parse().expect("a URL");
    assert_eq!(blob.path(), format!("{}/locks/key", endpoint.base));
    let _ = endpoint.account();
}

/// A credential that was accepted can be sent.
fn check_credential(credential: &Credential) {
    let _ = credential.check_valid(Clock::System.wall());
    let _ = credential.hint(NOW);
    let mut request = requests::renew("/locks/key", LeaseId::random().expect("random numbers"));
    credential.authorize(&mut request, "account", NOW, None);
    assert!(!format!("{request:?}").contains(SECRET));
    let target = request.target();
    let url = format!("https://host{}", *target).parse::<Uri>();
    let url = url.unwrap_or_else(|error| panic!("{}: {error}", *target));
    assert_eq!(url.path(), "/locks/key");
    for (_, value) in &request.headers {
        assert!(HeaderValue::from_str(value).is_ok(), "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Feeds every committed input of a target to its function.
    fn replay(target: &str, run: impl Fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        if !fuzz.exists() {
            return println!("the inputs are not in the published crate");
        }
        let mut count = 0;
        for entry in fs::read_dir(fuzz.join("corpus").join(target)).unwrap() {
            let path = entry.unwrap().path();
            // Shown if it panics.
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "no inputs for {target}");
    }

    #[test]
    fn committed_replies_do_no_harm() {
        replay("reply", super::reply);
    }

    #[test]
    fn committed_pages_do_no_harm() {
        replay("page", super::page);
    }

    #[test]
    fn committed_connection_strings_do_no_harm() {
        replay("connection_string", super::connection_string);
    }

    #[test]
    fn committed_signatures_do_no_harm() {
        replay("sas", super::sas);
    }

    #[test]
    fn committed_endpoints_do_no_harm() {
        replay("endpoint", super::endpoint);
    }

    #[test]
    fn committed_names_do_no_harm() {
        replay("name", super::name);
    }

    #[test]
    fn committed_metadata_does_no_harm() {
        replay("metadata", super::metadata);
    }

    #[test]
    fn committed_token_replies_do_no_harm() {
        replay("token_reply", super::token_reply);
    }

    #[test]
    fn committed_output_of_tools_does_no_harm() {
        replay("tool_output", super::tool_output);
    }

    #[test]
    fn committed_challenges_do_no_harm() {
        replay("challenge", super::challenge);
    }

    #[test]
    fn committed_certificates_do_no_harm() {
        replay("pem", super::pem);
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn committed_requests_do_the_emulator_no_harm() {
        replay("emulator", super::connection);
    }
}
