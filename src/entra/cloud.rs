//! PURE: Azure's clouds, and whom a token is asked from and for.

use super::address::Address;
use crate::error::Error;
use crate::text::quoted;

/// What tokens for storage are for, in all clouds.
pub(crate) const AUDIENCE: &str = "https://storage.azure.com";

#[derive(Debug)]
pub(crate) struct Cloud {
    /// What the names of blob endpoints end with.
    suffix: &'static str,
    /// Who issues tokens.
    pub(crate) authority: &'static str,
    /// Another name of the same.
    alias: &'static str,
    /// Whom the tokens of other issuers have to be for.
    pub(crate) federation: &'static str,
}

const CLOUDS: [Cloud; 3] = [
    Cloud {
        suffix: ".core.windows.net",
        authority: "https://login.microsoftonline.com",
        alias: "https://login.windows.net",
        federation: "api://AzureADTokenExchange",
    },
    Cloud {
        suffix: ".core.usgovcloudapi.net",
        authority: "https://login.microsoftonline.us",
        alias: "https://login.microsoftonline.us",
        federation: "api://AzureADTokenExchangeUSGov",
    },
    Cloud {
        suffix: ".core.chinacloudapi.cn",
        authority: "https://login.chinacloudapi.cn",
        alias: "https://login.partner.microsoftonline.cn",
        federation: "api://AzureADTokenExchangeChina",
    },
];

impl Cloud {
    /// The cloud of a blob endpoint's host; the public one if its name does not tell.
    pub(crate) fn of_endpoint(host: &str) -> &'static Self {
        let host = host.to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        CLOUDS
            .iter()
            .find(|cloud| host.ends_with(cloud.suffix))
            .unwrap_or(&CLOUDS[0])
    }

    /// The cloud of an authority; the public one if its name does not tell.
    pub(crate) fn of_authority(origin: &str) -> &'static Self {
        let is_its = |cloud: &&Self| {
            [cloud.authority, cloud.alias]
                .iter()
                .any(|own| own.eq_ignore_ascii_case(origin))
        };
        CLOUDS.iter().find(is_its).unwrap_or(&CLOUDS[0])
    }
}

/// Checks an authority: the host that issues tokens, and gets secrets.
pub(crate) fn authority(name: &str, url: &str) -> Result<Address, Error> {
    let whole = match url.contains("://") {
        true => url.to_owned(),
        false => format!("https://{url}"),
    };
    let address = Address::parse(name, &whole, false)?;
    if address.target.trim_end_matches('/').is_empty() && !whole.contains('#') {
        return Ok(address);
    }
    Err(Error::config(format!(
        "invalid {name}: it has more than a host, such as a path; use a URL such as \
         https://login.microsoftonline.com, and name the tenant apart"
    )))
}

/// Checks an audience, and returns it without the slash at its end.
pub(crate) fn audience(text: &str) -> Result<String, Error> {
    let text = text.trim().trim_end_matches('/');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:/".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) || text.ends_with("/.default") {
        return Err(Error::config(format!(
            "invalid audience {}: use a URL such as {AUDIENCE}, without `/.default`",
            quoted(text)
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_follows_the_suffix_of_the_endpoint() {
        let rows = [
            (
                "acct.blob.core.windows.net",
                "https://login.microsoftonline.com",
            ),
            (
                "acct.z13.blob.storage.azure.net",
                "https://login.microsoftonline.com",
            ),
            (
                "acct.blob.core.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            ),
            (
                "ACCT.blob.core.chinacloudapi.cn.",
                "https://login.chinacloudapi.cn",
            ),
            ("127.0.0.1", "https://login.microsoftonline.com"),
            (
                "core.chinacloudapi.cn.example",
                "https://login.microsoftonline.com",
            ),
        ];
        for (host, authority) in rows {
            assert_eq!(Cloud::of_endpoint(host).authority, authority, "{host}");
        }
    }

    #[test]
    fn audience_of_foreign_tokens_follows_the_authority() {
        let rows = [
            (
                "https://login.microsoftonline.com",
                "api://AzureADTokenExchange",
            ),
            (
                "https://LOGIN.microsoftonline.us",
                "api://AzureADTokenExchangeUSGov",
            ),
            (
                "https://login.partner.microsoftonline.cn",
                "api://AzureADTokenExchangeChina",
            ),
            ("https://adfs.example", "api://AzureADTokenExchange"),
        ];
        for (authority, wanted) in rows {
            assert_eq!(Cloud::of_authority(authority).federation, wanted);
        }
    }

    #[test]
    fn authority_is_a_host_reached_by_https() {
        for url in [
            "https://login.microsoftonline.us",
            "https://login.microsoftonline.us/",
            "https://login.microsoftonline.us//",
            "login.microsoftonline.us",
        ] {
            let address = authority("AZURE_AUTHORITY_HOST", url).unwrap();
            assert_eq!(address.origin, "https://login.microsoftonline.us");
        }
        assert!(authority("X", "http://127.0.0.1:8080").is_ok(), "for tests");
        for url in [
            "http://login.microsoftonline.com",
            "https://login.microsoftonline.com/common",
            "https://login.microsoftonline.com/?a=b",
            "https://login.microsoftonline.com#a",
            "https://u:p@login.microsoftonline.com",
            "",
        ] {
            let error = authority("AZURE_AUTHORITY_HOST", url)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("invalid AZURE_AUTHORITY_HOST"),
                "{url}: {error}"
            );
        }
    }

    #[test]
    fn audience_is_a_resource_and_no_scope() {
        for text in [
            "https://storage.azure.com",
            "https://storage.azure.com//",
            " https://storage.azure.com/\n",
        ] {
            assert_eq!(audience(text).unwrap(), AUDIENCE);
        }
        for text in [
            "",
            "/",
            "https://a b",
            "https://storage.azure.com/.default",
            "https://a?b",
            "a;b",
        ] {
            assert!(audience(text).is_err(), "{text}");
        }
    }
}
