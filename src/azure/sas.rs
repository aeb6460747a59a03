//! PURE: shared access signatures: what one says about itself, before it is sent.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::secret::{self, Expected};
use crate::error::Error;
use crate::http::message::{Method, Request};
use crate::text::escaped;
use crate::time::dates;

/// By how much this machine's clock may be behind the one that made the SAS.
const CLOCK_TOLERANCE: Duration = Duration::minutes(1);

/// A shared access signature.
#[derive(Clone)]
pub(crate) struct Sas {
    /// The query string, without a leading `?`: percent-encoded.
    token: Zeroizing<String>,
    /// When it begins: `st` or `skt`, whichever is later.
    starts: Option<(OffsetDateTime, &'static str)>,
    /// When it expires: `se` or `ske`, whichever is sooner. With a stored access policy, the SAS
    /// may not say.
    expires: Option<(OffsetDateTime, &'static str)>,
    /// The object ID of who signed it (`skoid`).
    signer: Option<String>,
    /// What is allowed (`sp`).
    permissions: Option<String>,
    covers: Covers,
}

/// The resources that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Covers {
    /// An account SAS covers types of resources (`srt`): service, container, object.
    Account(String),
    /// A container and its blobs (`sr=c`), or a directory in it (`sr=d`).
    Container,
    /// One blob (`sr=b`).
    Blob,
    /// It does not say.
    Unknown,
}

impl Sas {
    /// Reads a token as it was given.
    ///
    /// A signature that is not percent-encoded, and `&` as HTML and JSON write it, are repaired.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let token = secret::trim(text).map_err(wrong)?;
        if let Some(mistake) = secret::mistake(token, Expected::Sas) {
            return Err(wrong(mistake));
        }
        let token = token.strip_prefix('?').unwrap_or(token);
        let token = Zeroizing::new(token.replace("&amp;", "&"));
        let token = Zeroizing::new(token.replace("\\u0026", "&"));
        if token.contains("://") {
            return Err(wrong("it is a SAS URL; pass the part after `?`"));
        }
        if token.contains(['\r', '\n']) {
            return Err(wrong("it has a line break inside"));
        }
        if token
            .bytes()
            .any(|b| !b.is_ascii_graphic() || matches!(b, b'#' | b'?' | b'"' | b'<' | b'>'))
        {
            return Err(wrong(
                "it is not a query string; pass the part after `?`, percent-encoded",
            ));
        }
        check_names(&token)?;
        let value = |wanted: &str| {
            token.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                (name == wanted).then(|| percent_decode_str(value).decode_utf8_lossy())
            })
        };
        match value("sig") {
            None => {
                return Err(wrong(
                    "it has no `sig`; copy the whole token, and put it in quotes, since a shell \
                     cuts it at the first `&`",
                ));
            }
            Some(signature) if signature.is_empty() => {
                return Err(wrong("it has no `sig`; copy the whole token"));
            }
            Some(signature) if signature.contains('%') => {
                return Err(wrong(
                    "it is percent-encoded twice (its `sig` still has `%` once it is decoded); \
                     decode it once",
                ));
            }
            Some(_) => {}
        }
        let time = |name: &'static str| match value(name) {
            None => Ok(None),
            Some(text) => match dates::parse_utc(&text) {
                Some(time) => Ok(Some((time, name))),
                None => Err(wrong(&format!(
                    "its {} `{name}={}` is not a time such as 2026-01-31T12:00:00Z",
                    if name.ends_with('e') {
                        "expiry"
                    } else {
                        "start"
                    },
                    escaped(&text)
                ))),
            },
        };
        Ok(Self {
            starts: time("st")?.max(time("skt")?),
            expires: match (time("se")?, time("ske")?) {
                (Some(token), Some(key)) => Some(token.min(key)),
                (token, key) => token.or(key),
            },
            signer: value("skoid")
                .filter(|id| is_object_id(id))
                .map(Cow::into_owned),
            permissions: value("sp").map(Cow::into_owned),
            covers: covers(&value)?,
            token: with_encoded_signature(&token),
        })
    }

    pub(crate) fn token(&self) -> &Zeroizing<String> {
        &self.token
    }

    /// Who signed it, by a key of their own, if it is a user delegation SAS.
    pub(crate) fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// Why it is not valid at `now`, without the subject: "expired at ...".
    pub(crate) fn not_valid(&self, now: OffsetDateTime) -> Option<String> {
        if let Some((end, name)) = self.expires.filter(|(end, _)| *end <= now) {
            let end = dates::utc(end);
            return Some(match name {
                "ske" => format!("expired with the key that signed it at {end} (`ske`)"),
                _ => format!("expired at {end}"),
            });
        }
        let (start, name) = self
            .starts
            .filter(|(start, _)| *start > now + CLOCK_TOLERANCE)?;
        Some(format!(
            "is not valid before {} (`{name}`), and this machine's clock says {}",
            dates::utc(start),
            dates::utc(now)
        ))
    }

    /// Why the service would refuse the request, if that can be told from the SAS.
    pub(crate) fn refuses(&self, request: &Request<'_>) -> Option<String> {
        let has = |name: &str, value: &str| {
            let mut query = request.query.iter();
            query.any(|(found, text)| *found == name && text == value)
        };
        let breaks = request
            .headers
            .iter()
            .any(|(name, value)| name == "x-ms-lease-action" && value == "break");
        let is_list = has("comp", "list");
        let is_container = has("restype", "container");
        if is_container && !is_list {
            match &self.covers {
                Covers::Container | Covers::Blob => {
                    return Some(
                        "a container SAS cannot create its container; create the container first, \
                         or use an account SAS or the account key"
                            .to_owned(),
                    );
                }
                Covers::Account(_) | Covers::Unknown => {}
            }
        }
        if is_list && self.covers == Covers::Blob {
            return Some("the SAS is for one blob (`sr=b`), and cannot list".to_owned());
        }
        if let Covers::Account(types) = &self.covers {
            let (wanted, name) = match is_container {
                true => ('c', "containers"),
                false => ('o', "blobs (objects)"),
            };
            if !types.contains(wanted) {
                return Some(format!(
                    "the SAS is not for {name}: its resource types (`srt={types}`) lack \
                     `{wanted}`; create one with `srt=co`"
                ));
            }
        }
        let (any_of, name) = match request.method {
            _ if is_list => ("l", "list"),
            Method::Get | Method::Head => ("r", "read"),
            // What makes a new blob or container.
            Method::Put if is_container || has_none_match(request) => ("wc", "write or create"),
            Method::Put if breaks => ("wd", "write"),
            Method::Put | Method::Post => ("w", "write"),
        };
        let permissions = self.permissions.as_deref()?;
        if permissions.contains(|c| any_of.contains(c)) {
            return None;
        }
        let wanted = &any_of[..1];
        Some(format!(
            "the SAS does not allow this: its permissions (`sp={}`) lack `{wanted}` ({name}); \
             create one with `sp=rcwl`",
            escaped(permissions)
        ))
    }
}

/// The parameters of requests. One that came with a SAS would change what a request does.
const OF_REQUESTS: [&str; 11] = [
    "restype",
    "comp",
    "snapshot",
    "versionid",
    "timeout",
    "prefix",
    "delimiter",
    "marker",
    "maxresults",
    "include",
    "blockid",
];

/// Checks that each name is one of a SAS, and there once.
fn check_names(token: &str) -> Result<(), Error> {
    let mut seen: Vec<&str> = Vec::new();
    for pair in token.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if OF_REQUESTS.iter().any(is) {
            return Err(wrong(&format!(
                "`{name}` belongs to a request, not to a SAS; remove it"
            )));
        }
        if seen.iter().any(is) {
            // A part of the signature, cut off in front of its `=`, is not shown.
            return Err(match name.len() {
                ..=5 => wrong(&format!("it has `{name}` twice")),
                _ => wrong("it has a parameter twice"),
            });
        }
        seen.push(name);
    }
    Ok(())
}

fn is_object_id(id: &str) -> bool {
    let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(is_of_id)
}

fn has_none_match(request: &Request<'_>) -> bool {
    request
        .headers
        .iter()
        .any(|(name, _)| name == "if-none-match")
}

/// Reads for which service and resources it is.
fn covers<'a>(value: &impl Fn(&str) -> Option<Cow<'a, str>>) -> Result<Covers, Error> {
    if let Some(services) = value("ss") {
        if !services.contains('b') {
            return Err(wrong(&format!(
                "it is not for blobs: its services (`ss={}`) lack `b`",
                escaped(&services)
            )));
        }
        let types = value("srt").unwrap_or_default();
        return Ok(match types.is_empty() {
            true => Covers::Unknown,
            false => Covers::Account(escaped(&types)),
        });
    }
    if value("tn").is_some() {
        return Err(wrong("it is for Table Storage (`tn`), not for blobs"));
    }
    match value("sr").as_deref() {
        None => Ok(Covers::Unknown),
        Some("c" | "d") => Ok(Covers::Container),
        Some("b") => Ok(Covers::Blob),
        Some("s" | "f") => Err(wrong("it is for Azure Files (`sr`), not for blobs")),
        Some("bs" | "bv") => Err(wrong(
            "it is for a snapshot or version of a blob (`sr`), which has no lease; create one for \
             the container (`sr=c`)",
        )),
        Some(_) => Ok(Covers::Unknown),
    }
}

/// The token with a signature that a query can carry: base64 has `+`, `/` and `=`, and a raw `+`
/// stands for a blank.
fn with_encoded_signature(token: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(token.len() + 16));
    for (place, pair) in token.split('&').enumerate() {
        if place > 0 {
            out.push('&');
        }
        match pair.strip_prefix("sig=") {
            None => out.push_str(pair),
            Some(signature) => {
                out.push_str("sig=");
                for c in signature.chars() {
                    match c {
                        '+' => out.push_str("%2B"),
                        '/' => out.push_str("%2F"),
                        '=' => out.push_str("%3D"),
                        c => out.push(c),
                    }
                }
            }
        }
    }
    out
}

fn wrong(rule: &str) -> Error {
    Error::config(format!("invalid SAS: {rule}"))
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expires {
            Some((end, _)) => write!(f, "SAS until {}", dates::utc(end)),
            None => f.write_str("SAS"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::requests;
    use crate::holder::record::Record;
    use crate::lease::ids::{LeaseDuration, LeaseId};

    fn at(text: &str) -> OffsetDateTime {
        dates::parse_utc(text).unwrap()
    }

    #[test]
    fn tokens_are_repaired() {
        for (text, sent) in [
            ("?sv=1&sig=a%2Bb%3D", "sv=1&sig=a%2Bb%3D"),
            ("sv=1&sig=a+b/c==", "sv=1&sig=a%2Bb%2Fc%3D%3D"),
            ("sv=1&amp;sp=rw&amp;sig=x", "sv=1&sp=rw&sig=x"),
            ("sv=1\\u0026sig=x", "sv=1&sig=x"),
            ("\u{feff}\"?sv=1&sig=x\"\r\n", "sv=1&sig=x"),
            (
                "sig=a+&st=2001-01-01T00:00:00Z",
                "sig=a%2B&st=2001-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                *Sas::parse(text).expect(text).token().as_str(),
                *sent,
                "{text}"
            );
        }
    }

    #[test]
    fn tokens_are_refused_with_the_reason() {
        for (text, rule) in [
            ("sv=2021-08-06", "cuts it at the first `&`"),
            ("sv=1&sig=", "it has no `sig`"),
            ("sv=1&sig=a%252Bs3cret", "percent-encoded twice"),
            ("sv=1&\nsig=s3cret", "a line break inside"),
            ("\"sv=1&sig=s3cret", "remove the quotes"),
            (
                "https://a.example/c?sig=s3cret",
                "a SAS URL; pass the part after `?`",
            ),
            ("ss=q&srt=sco&sig=s3cret", "`ss=q`) lack `b`"),
            ("ss=f&srt=sco&sp=rw&sig=s3cret", "not for blobs"),
            ("tn=t&sig=s3cret", "Table Storage"),
            ("sr=s&sig=s3cret", "Azure Files"),
            ("sr=f&sig=s3cret", "Azure Files"),
            ("sr=bs&sig=s3cret", "snapshot or version"),
            (
                "restype=container&comp=list&sr=c&sig=s3cret",
                "`restype` belongs to a request, not to a SAS; remove it",
            ),
            ("sr=c&sig=s3cret&Comp=x", "`Comp` belongs to a request"),
            ("sr=b&snapshot=x&sig=s3cret", "`snapshot` belongs to"),
            ("sr=b&sig=s3cret&versionid=x", "`versionid` belongs to"),
            ("sr=c&sig=s3cret&timeout=1", "`timeout` belongs to"),
            ("sr=c&sp=r&sig=s3cret&sp=rw", "it has `sp` twice"),
            ("sr=c&sig=s3cret&SIG=s3cret", "it has `SIG` twice"),
            (
                "AZURE_STORAGE_SAS_TOKEN=sr=c&sig=s3cret",
                "a variable's name in front of it",
            ),
            (
                "sr=c&st=soon&sig=s3cret",
                "its start `st=soon` is not a time",
            ),
            (
                "sr=c&ske=soon&sig=s3cret",
                "its expiry `ske=soon` is not a time",
            ),
        ] {
            let error = Sas::parse(text).expect_err(text).to_string();
            assert!(
                error.starts_with("invalid SAS: ") && error.contains(rule),
                "{text}: {error}"
            );
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn times_are_told_before_anything_is_sent() {
        let now = at("2026-01-31T12:00:00Z");
        for (text, why) in [
            (
                "se=2026-01-31T12:00:00Z&sig=x",
                Some("expired at 2026-01-31T12:00:00Z"),
            ),
            ("se=2026-01-31T12:00:01Z&sig=x", None),
            ("st=2026-01-31T12:01:00Z&sig=x", None),
            (
                "st=2026-01-31T12:01:01Z&sig=x",
                Some("not valid before 2026-01-31T12:01:01Z (`st`)"),
            ),
            (
                "se=2027-01-01&ske=2026-01-01&sig=x",
                Some("expired with the key that signed it at 2026-01-01T00:00:00Z (`ske`)"),
            ),
            (
                "se=2026-01-01&ske=2027-01-01&sig=x",
                Some("expired at 2026-01-01T00:00:00Z"),
            ),
            ("st=2026-01-01&skt=2026-02-01&sig=x", Some("(`skt`)")),
            ("si=policy&sr=c&sig=x", None),
        ] {
            let found = Sas::parse(text).unwrap().not_valid(now);
            match why {
                None => assert_eq!(found, None, "{text}"),
                Some(why) => assert!(
                    found.as_ref().is_some_and(|f| f.contains(why)),
                    "{text}: {found:?}"
                ),
            }
        }
    }

    #[test]
    fn what_it_does_not_allow_is_told_before_anything_is_sent() {
        let id = LeaseId::random().unwrap();
        let acquire = requests::acquire("/c/k", id, LeaseDuration::MAX);
        let write = requests::set_metadata("/c/k", Some(id), &Record::default(), None);
        let (create, container) = (
            requests::create_blob("/c/k"),
            requests::create_container("/c"),
        );
        let (read, list) = (
            requests::get_properties("/c/k", None),
            requests::list_blobs("/c", "", None),
        );
        let end = requests::break_lease("/c/k", None, None);
        let rows = [
            (
                "sr=c&sp=rl",
                &acquire,
                "its permissions (`sp=rl`) lack `w` (write)",
            ),
            ("sr=c&sp=rcl", &write, "lack `w`"),
            ("sr=c&sp=wl", &read, "lack `r` (read)"),
            ("sr=c&sp=rw", &list, "lack `l` (list)"),
            ("sr=c&sp=r", &create, "lack `w` (write or create)"),
            ("sr=c&sp=r", &end, "lack `w`"),
            (
                "sr=c&sp=rcwl",
                &container,
                "a container SAS cannot create its container",
            ),
            ("sr=b&sp=rcwl", &container, "cannot create its container"),
            (
                "sr=d&sdd=1&sp=rcwl",
                &container,
                "cannot create its container",
            ),
            ("si=policy&sr=c", &container, "cannot create its container"),
            ("sr=b&sp=rw", &list, "for one blob"),
            ("ss=b&srt=sc&sp=rwcl", &acquire, "(`srt=sc`) lack `o`"),
            ("ss=b&srt=o&sp=rwcl", &list, "(`srt=o`) lack `c`"),
            ("ss=b&srt=o&sp=rwcl", &container, "(`srt=o`) lack `c`"),
        ];
        for (text, request, why) in rows {
            let sas = Sas::parse(&format!("{text}&sig=x")).unwrap();
            let found = sas.refuses(request);
            assert!(
                found.as_ref().is_some_and(|found| found.contains(why)),
                "{text}: {found:?}"
            );
        }
        let allowed = [
            (
                "sr=c&sp=rcwl",
                &[&acquire, &write, &read, &list, &create, &end][..],
            ),
            ("sr=c&sp=rd", &[&end]),
            ("sr=c&sp=c", &[&create]),
            ("si=policy&sr=c", &[&acquire, &read, &list]),
            (
                "ss=bfqt&srt=sco&sp=rwdlacup",
                &[&acquire, &list, &container],
            ),
            ("ss=b", &[&acquire, &list, &container]),
            ("", &[&acquire, &container]),
        ];
        for (text, requests) in allowed {
            let sas = Sas::parse(&format!("{text}&sig=x")).unwrap();
            for request in requests {
                assert_eq!(sas.refuses(request), None, "{text}: {request:?}");
            }
        }
    }
}
