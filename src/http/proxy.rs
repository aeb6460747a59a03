//! PURE, but for [`Proxy::from_env`]: the proxy that the environment names for a host, read as curl
//! and Go read it.
//!
//! Of the variables that are set and not empty, the first counts: `https_proxy`, `HTTPS_PROXY`,
//! `all_proxy`, `ALL_PROXY` for `https://`, and `http_proxy`, `HTTP_PROXY`, `all_proxy`, `ALL_PROXY`
//! for `http://`. Lower case comes first, as in curl; Go prefers upper case. `HTTP_PROXY` does not
//! count in a CGI program, where a request's `Proxy:` header sets it. This machine is always reached
//! directly, since what a proxy calls `localhost` is the proxy's own machine.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use zeroize::Zeroizing;

use super::resolver::is_loopback;
use crate::error::Error;

/// The schemes of proxies, and their ports if none is given.
const SCHEMES: [(&str, u16); 6] = [
    ("http", 80),
    ("https", 443),
    ("socks4", 1080),
    ("socks4a", 1080),
    ("socks5", 1080),
    ("socks5h", 1080),
];

/// A proxy, and the variable that names it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(super) scheme: &'static str,
    /// As in a URL: an IPv6 address is in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// User and password, decoded.
    pub(super) credentials: Option<(Zeroizing<String>, Zeroizing<String>)>,
    pub(super) variable: &'static str,
}

impl Proxy {
    /// The proxy to reach `origin` through, such as `https://acct.blob.core.windows.net`.
    ///
    /// An error names the variable and never shows its value, which may hold a password.
    pub(crate) fn from_env(origin: &str) -> Result<Option<Self>, Error> {
        Self::find(origin, variable)
    }

    fn find(origin: &str, var: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Error> {
        let Ok(uri) = origin.parse::<Uri>() else {
            return Ok(None);
        };
        let host = uri.host().unwrap_or_default();
        if is_loopback(host) {
            return Ok(None);
        }
        let (names, port) = match (uri.scheme_str(), is_set(&var, "REQUEST_METHOD")) {
            (Some("https"), _) => (["https_proxy", "HTTPS_PROXY"].as_slice(), 443),
            (_, false) => (["http_proxy", "HTTP_PROXY"].as_slice(), 80),
            (_, true) => (["http_proxy"].as_slice(), 80),
        };
        let proxy = match first_of(names, &var)? {
            Some(found) => Some(found),
            None => first_of(&["all_proxy", "ALL_PROXY"], &var)?,
        };
        let Some((variable, text)) = proxy else {
            return Ok(None);
        };
        if let Some((_, list)) = first_of(&["no_proxy", "NO_PROXY"], &var)?
            && is_excepted(&list, host, uri.port_u16().unwrap_or(port))
        {
            return Ok(None);
        }
        Self::parse(variable, &text)
            .map(Some)
            .map_err(|why| Error::config(format!("invalid {variable}: {why}")))
    }

    /// Reads `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT][/...]`.
    fn parse(variable: &'static str, text: &str) -> Result<Self, &'static str> {
        if text.contains(char::is_control) {
            return Err("it has a control character in it");
        }
        if SCHEMES.iter().any(|(name, _)| is_cut(text, name)) {
            return Err("its `://` is not complete; use e.g. http://proxy:3128");
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if scheme.eq_ignore_ascii_case("socks") {
            return Err("it does not say which SOCKS it is: socks4, socks4a, socks5 or socks5h");
        }
        let mut known = SCHEMES.into_iter();
        let (scheme, port) = known
            .find(|(name, _)| name.eq_ignore_ascii_case(scheme))
            .ok_or("it does not begin with http, https, socks4, socks4a, socks5 or socks5h")?;
        if scheme == "https" && !cfg!(any(feature = "rustls", feature = "native-tls")) {
            return Err("a proxy with https needs one of the features `rustls` and `native-tls`");
        }
        let (userinfo, authority) = split_userinfo(rest, port)?;
        let (host, port) = host_and_port(authority, port)?;
        let credentials = match userinfo.split_once(':').unwrap_or((userinfo, "")) {
            ("", "") => None,
            (user, password) => Some((decode(user)?, decode(password)?)),
        };
        if credentials.is_some() && scheme.starts_with("socks4") {
            return Err("SOCKS4 has no passwords; use socks5 or socks5h");
        }
        Ok(Self {
            scheme,
            host,
            port,
            credentials,
            variable,
        })
    }
}

/// Without the credentials, as in `http://proxy:3128 (from HTTPS_PROXY)`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            host,
            port,
            variable,
            ..
        } = self;
        write!(f, "{scheme}://{host}:{port} (from {variable})")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A variable by its exact name. Windows does not tell upper from lower case, and would find what a
/// request's `Proxy:` header sets as `http_proxy` too.
fn variable(name: &str) -> Option<OsString> {
    if cfg!(not(windows)) {
        return env::var_os(name);
    }
    env::vars_os()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value)
}

fn is_set(var: impl Fn(&str) -> Option<OsString>, name: &str) -> bool {
    var(name).is_some_and(|value| !value.is_empty())
}

/// The first variable that is set and not empty, and its value without what a shell script or an
/// env file may have left around it: blanks, line ends and quotes.
fn first_of(
    names: &[&'static str],
    var: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(&'static str, Zeroizing<String>)>, Error> {
    for &name in names {
        let Some(value) = var(name) else { continue };
        let value = value
            .into_string()
            .map_err(|_| Error::config(format!("invalid {name}: it is not UTF-8")))?;
        let value = Zeroizing::new(value);
        let around = |c: char| c.is_whitespace() || c.is_control() || "\"'`\u{feff}".contains(c);
        let trimmed = value.trim_matches(around);
        if !trimmed.is_empty() {
            return Ok(Some((name, Zeroizing::new(trimmed.to_owned()))));
        }
    }
    Ok(None)
}

/// Whether a URL begins with this scheme and `//` or `:/`, and not with `://`.
fn is_cut(url: &str, scheme: &str) -> bool {
    let begins = url
        .get(..scheme.len())
        .is_some_and(|text| text.eq_ignore_ascii_case(scheme));
    let rest = url.get(scheme.len()..).filter(|_| begins);
    rest.is_some_and(|rest| {
        rest.starts_with("//") || (rest.starts_with(":/") && !rest.starts_with("://"))
    })
}

/// Splits at the last `@`. A password that is not percent-encoded may have `@`, `:`, `/`, `?` and
/// `#` in it, as long as its URL cannot be read in two ways.
fn split_userinfo(rest: &str, default_port: u16) -> Result<(&str, &str), &'static str> {
    let Some((userinfo, authority)) = rest.rsplit_once('@') else {
        return Ok(("", rest));
    };
    match userinfo.find('/') {
        // What comes before it could be the host; then the `@` is part of the path.
        Some(end)
            if userinfo[..end].contains('@')
                || host_and_port(&userinfo[..end], default_port).is_ok() =>
        {
            Err("it is not clear where the password ends; write its `@` as %40 and its `/` as %2F")
        }
        _ => Ok((userinfo, authority)),
    }
}

fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    let authority = text.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.find(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some(digits) if digits.contains(':') => {
            return Err(
                "it has more than one port; an IPv6 address goes into brackets, as in \
                        http://[::1]:3128",
            );
        }
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("its port is not between 1 and 65535")?,
        _ => return Err("its port is not a number"),
    };
    let bracketed = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let is_host = match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if host.is_empty() {
        return Err("it names no host; use e.g. http://proxy:3128");
    }
    if !is_host {
        return Err("its host is neither a name nor an address; use e.g. http://proxy:3128");
    }
    Ok((host.to_owned(), port))
}

fn decode(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(|text| Zeroizing::new(text.into_owned()))
        .map_err(|_| "its user or password is not UTF-8 once percent-decoded")
}

/// Whether a list of `NO_PROXY` names this host: `*`, names (which stand for everything below them
/// too; `.name` and, for what is below alone, `*.name`), addresses, and networks as in `10.0.0.0/8`.
/// Each may have a port.
fn is_excepted(list: &str, host: &str, port: u16) -> bool {
    let host = bare(host);
    let ip = host.parse::<IpAddr>().ok();
    list.split(|c: char| c == ',' || c == ';' || c.is_whitespace())
        .any(|entry| {
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
                    (name, port.parse().ok())
                }
                _ => (entry, Some(port)),
            };
            let matches = match (ip, entry.split_once('/')) {
                _ if name == "*" => true,
                (Some(ip), Some((network, bits))) => is_in_network(ip, network, bits),
                (Some(ip), None) => bare(name).parse() == Ok(ip),
                (None, _) => is_below(&host, &bare(name)),
            };
            matches && wanted == Some(port)
        })
}

/// A host in lower case, without brackets and without the dot of a full name.
fn bare(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_below(host: &str, name: &str) -> bool {
    let (suffix, itself) = match name.strip_prefix("*.") {
        Some(suffix) => (suffix, false),
        None => (name.trim_start_matches('.'), true),
    };
    match host.strip_suffix(suffix) {
        _ if suffix.is_empty() => false,
        Some("") => itself,
        Some(front) => front.ends_with('.'),
        None => false,
    }
}

fn is_in_network(ip: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else {
        return false;
    };
    match (ip, bare(network).parse()) {
        (IpAddr::V4(ip), Ok(IpAddr::V4(network))) if bits <= 32 => {
            let differs = ip.to_bits() ^ network.to_bits();
            differs.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), Ok(IpAddr::V6(network))) if bits <= 128 => {
            let differs = ip.to_bits() ^ network.to_bits();
            differs.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
