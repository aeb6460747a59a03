//! PURE: where the URL of a blob endpoint names its account: in the host's name, or in the path.

use std::net::IpAddr;

use crate::azure::validate::check_account;

/// How a host names accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style<'a> {
    /// `ACCOUNT.blob.SUFFIX`. There is nothing in the path.
    Host(&'a str),
    /// An emulator's: the path is the account.
    Path,
    /// A domain of one's own: the path is the account, or empty.
    Own,
}

/// The suffixes of Azure's clouds.
const CLOUDS: [&str; 5] = [
    "core.windows.net",
    "core.chinacloudapi.cn",
    "core.usgovcloudapi.net",
    "core.cloudapi.de",
    "storage.azure.net",
];

/// Reads how `host` names accounts. It is in lower case and has no port.
pub(super) fn style(host: &str) -> Style<'_> {
    if let Some((account, "blob")) = service(host) {
        return Style::Host(account);
    }
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address || !host.contains('.') || host.ends_with(".localhost") || host == DOCKER {
        Style::Path
    } else {
        Style::Own
    }
}

/// How containers reach their host.
const DOCKER: &str = "host.docker.internal";

/// The account and the service in a host such as `acct.blob.core.windows.net`, with a zone or a
/// private link between them or without.
fn service(host: &str) -> Option<(&str, &str)> {
    let mut labels = host.split('.');
    let account = labels.next()?;
    check_account(account.strip_suffix("-secondary").unwrap_or(account)).ok()?;
    let is_zone = |label: &str| {
        let number = label.strip_prefix('z');
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let service = labels.find(|label| *label != "privatelink" && !is_zone(label))?;
    labels.next()?;
    Some((account, service))
}

/// The account that a URL with this host and path names, if it does.
pub(super) fn account<'a>(host: &'a str, path: &'a str) -> Option<&'a str> {
    match style(host) {
        Style::Host(account) => Some(account),
        Style::Path | Style::Own => path.split('/').nth(1).filter(|first| !first.is_empty()),
    }
}

/// Checks that the URL of an endpoint is that of `account`, and ends there.
///
/// `path`: without a slash at the end. `named`: whether the account was given by itself.
///
/// # Errors
///
/// The rule that it breaks, and what to do.
pub(super) fn check(
    host: &str,
    path: &str,
    account: &str,
    named: bool,
    container: &str,
) -> Result<(), String> {
    if let Some((account, other @ ("dfs" | "file" | "queue" | "table" | "web"))) = service(host)
        && let Some(cloud) = CLOUDS.iter().find(|cloud| host.ends_with(**cloud))
    {
        return Err(format!(
            "it is the endpoint of another service (`{other}`); use that for blobs, such as \
             https://{account}.blob.{cloud}"
        ));
    }
    let style = style(host);
    if style == Style::Own
        && let Some(cloud) = CLOUDS.iter().find(|cloud| host.ends_with(**cloud))
    {
        return Err(format!(
            "it names no account; use https://ACCOUNT.blob.{cloud}"
        ));
    }
    let in_path = path.split('/').nth(1).unwrap_or_default();
    let found = match style {
        Style::Host(account) => account,
        Style::Path | Style::Own => in_path,
    };
    if let Some(primary) = found.strip_suffix("-secondary") {
        return Err(format!(
            "`{found}` is the secondary location, which can only be read; use `{primary}`"
        ));
    }
    let (rest, expected) = match style {
        Style::Host(found) if found != account => {
            return Err(format!("it is for the account `{found}`, not `{account}`"));
        }
        Style::Host(_) => (path, String::new()),
        Style::Path if path.is_empty() && !named => {
            return Err(
                "the path with the account is missing, such as /devstoreaccount1: at such a host, \
                 the account is in the path"
                    .to_owned(),
            );
        }
        Style::Path if in_path == container && !named => {
            return Err(format!(
                "its path `{path}` is where the account is, and the container has the same name; \
                 if the account has it too, name it (`AccountName={in_path}`)"
            ));
        }
        Style::Path if path.is_empty() => {
            return Err(format!(
                "the path /{account} is missing: at such a host, the account is in the path"
            ));
        }
        Style::Own if path.is_empty() => return Ok(()),
        Style::Path | Style::Own => {
            if !named && style == Style::Own {
                return Err(format!(
                    "whether its path `{path}` is the account or a container cannot be told; if it \
                     is the account, name it (`AccountName={in_path}`), and if not, remove the path"
                ));
            }
            match path.strip_prefix('/').and_then(|p| p.strip_prefix(account)) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    (rest, format!("/{account}"))
                }
                _ if style == Style::Own => (path, String::new()),
                _ => (path, format!("/{account}")),
            }
        }
    };
    let first = rest.split('/').nth(1).unwrap_or_default();
    if first.is_empty() {
        return Ok(());
    }
    let ends = match &*expected {
        "" => "ends after the host".to_owned(),
        path => format!("has the path `{path}` only"),
    };
    Err(if first == container {
        format!(
            "it holds the container, `{first}`, which is given by itself; remove `{rest}` from the \
             URL"
        )
    } else if first == account {
        format!("it has the account `{account}` twice; an endpoint {ends}")
    } else {
        format!(
            "its path `{rest}` names a container, `{first}`, but the container in use is \
             `{container}`; an endpoint {ends}"
        )
    })
}
