//! PURE: URLs of token endpoints.

use ureq::http::Uri;

use crate::error::Error;
use crate::http::resolver::is_loopback;
use crate::text::quoted;

/// A URL, in the parts that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Scheme, host and port.
    pub(crate) origin: String,
    /// Path and query; at least `/`.
    pub(crate) target: String,
    /// Whether the host is this machine.
    pub(crate) loopback: bool,
}

impl Address {
    /// `name`: what the URL is, for the error. Plain http is refused unless `plain` says that the
    /// endpoint is local by its nature, or the host is this machine.
    pub(crate) fn parse(name: &str, url: &str, plain: bool) -> Result<Self, Error> {
        let url = url.trim();
        let wrong = |rule: &str| {
            let shown = url.split(['?', '#']).next().unwrap_or_default();
            let shown = match shown.contains('@') {
                true => String::new(),
                false => format!(" {}", quoted(shown)),
            };
            Err(Error::config(format!("invalid {name}{shown}: {rule}")))
        };
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong("it is not a URL");
        };
        let (Some(scheme), Some(host), Some(authority)) = (
            uri.scheme_str(),
            uri.host().filter(|host| !host.is_empty()),
            uri.authority(),
        ) else {
            return wrong("it is not a whole URL, such as https://HOST");
        };
        if authority.as_str().contains('@') {
            return wrong("it has a user name or password");
        }
        if authority.as_str() != host && uri.port_u16().is_none_or(|port| port == 0) {
            return wrong("its port is not between 1 and 65535");
        }
        let loopback = is_loopback(host);
        match scheme {
            "https" => {}
            "http" if plain || loopback => {}
            _ => return wrong("use https"),
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
            loopback,
        })
    }

    /// The host, without the port.
    #[cfg(test)]
    pub(crate) fn host(&self) -> &str {
        let host = self.origin.split("://").nth(1).unwrap_or_default();
        match host.strip_prefix('[') {
            Some(address) => address.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let rows = [
            ("https://login.example", "https://login.example", "/", false),
            (
                "https://h:8443/a/b?c=d\n",
                "https://h:8443",
                "/a/b?c=d",
                false,
            ),
            (
                "http://127.0.0.1:41741/msi/token/",
                "http://127.0.0.1:41741",
                "/msi/token/",
                true,
            ),
            ("http://[::1]:80/", "http://[::1]:80", "/", true),
            (
                "http://localhost:42356/msi/token",
                "http://localhost:42356",
                "/msi/token",
                true,
            ),
            (
                "http://a.localhost:8080/",
                "http://a.localhost:8080",
                "/",
                true,
            ),
            (
                "http://[::ffff:127.0.0.1]:80/",
                "http://[::ffff:127.0.0.1]:80",
                "/",
                true,
            ),
        ];
        for (url, origin, target, loopback) in rows {
            let address = Address::parse("X", url, false).unwrap();
            assert_eq!(
                (&*address.origin, &*address.target, address.loopback),
                (origin, target, loopback)
            );
        }
        let local = Address::parse("X", "http://169.254.130.1:8081/msi", true).unwrap();
        assert_eq!((local.host(), local.loopback), ("169.254.130.1", false));
        let six = Address::parse("X", "http://[::1]:80/", true).unwrap();
        assert_eq!(six.host(), "::1");
    }

    #[test]
    fn url_that_cannot_be_used_is_named_without_what_may_be_secret() {
        let rows = [
            ("", "not a URL"),
            ("login.example", "not a whole URL"),
            ("/a", "not a whole URL"),
            ("ftp://h/", "use https"),
            ("http://h.example/", "use https"),
            ("https://h:0/", "its port"),
            ("https://h:x/", "its port"),
            ("https://user:s3cret@h/", "user name"),
            ("http://h.example/?k=s3cret", "use https"),
        ];
        for (url, rule) in rows {
            let error = Address::parse("VARIABLE", url, false)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("invalid VARIABLE"), "{error}");
            assert!(
                error.contains(rule) && !error.contains("s3cret"),
                "{url}: {error}"
            );
        }
    }
}
