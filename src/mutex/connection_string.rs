//! PURE: connection strings.

use crate::azure::credential::Credential;
use crate::azure::secret::{self, Expected};
use crate::azure::validate::check_account;
use crate::error::Error;

/// The account that every emulator has. Public, not a secret.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What a connection string says about blobs. The URL may hold a secret.
pub(super) struct ConnectionString {
    /// With a SAS, it may be in the endpoint alone.
    pub(super) account: Option<String>,
    /// A URL, not checked.
    pub(super) endpoint: String,
    pub(super) credential: Credential,
}

/// The parts that concern blobs.
#[derive(Default)]
struct Parts<'a> {
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas: Option<&'a str>,
    endpoint: Option<&'a str>,
    suffix: Option<&'a str>,
    development: Option<&'a str>,
    proxy: Option<&'a str>,
}

/// Reads a connection string. No message quotes a value: any of them may be a secret in the wrong
/// place.
pub(super) fn read(text: &str) -> Result<ConnectionString, Error> {
    let text = secret::unquoted(text);
    if let Some(mistake) = secret::mistake(text, Expected::ConnectionString) {
        return Err(wrong(mistake));
    }
    // As HTML writes it, which would end a part.
    let text = zeroize::Zeroizing::new(text.replace("&amp;", "&"));
    let parts = Parts::read(&text)?;
    match parts.development {
        None => {}
        Some(value) if value.eq_ignore_ascii_case("true") => return parts.into_development(),
        Some(value) if value.eq_ignore_ascii_case("false") => {}
        Some(_) => return Err(wrong("`UseDevelopmentStorage` is neither true nor false")),
    }
    parts.into_account()
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Result<Self, Error> {
        let mut this = Self::default();
        let margin = |c: char| c.is_whitespace() || c == '\u{feff}';
        for part in text.split(';') {
            let part = part.trim_matches(margin);
            if part.is_empty() {
                continue;
            }
            // Values may hold `=` themselves.
            let Some((name, value)) = part.split_once('=') else {
                secret::trim(part).map_err(wrong)?;
                return Err(wrong(
                    "a part has no `=`; parts are `Name=value`, separated by `;`",
                ));
            };
            let name = name.trim();
            if name.contains(secret::is_quote) {
                return Err(wrong(
                    "it has quotes at one end that are not part of it; remove the quotes",
                ));
            }
            let (slot, name) = match name.to_ascii_lowercase().as_str() {
                "defaultendpointsprotocol" => (&mut this.protocol, "DefaultEndpointsProtocol"),
                "accountname" => (&mut this.account, "AccountName"),
                "accountkey" => (&mut this.key, "AccountKey"),
                "sharedaccesssignature" => (&mut this.sas, "SharedAccessSignature"),
                "blobendpoint" => (&mut this.endpoint, "BlobEndpoint"),
                "endpointsuffix" => (&mut this.suffix, "EndpointSuffix"),
                "usedevelopmentstorage" => (&mut this.development, "UseDevelopmentStorage"),
                "developmentstorageproxyuri" => (&mut this.proxy, "DevelopmentStorageProxyUri"),
                other if is_of_another_service(other) => continue,
                _ => return Err(unknown(name)),
            };
            let value = secret::trim(value)
                .map_err(|rule| wrong(&format!("`{name}` is not valid: {rule}")))?;
            if value.is_empty() {
                return Err(wrong(&format!("`{name}` is empty")));
            }
            if value.contains(['\r', '\n']) {
                return Err(wrong(&format!("`{name}` has a line break inside")));
            }
            if slot.replace(value).is_some() {
                return Err(wrong(&format!("`{name}` appears twice")));
            }
        }
        Ok(this)
    }

    fn into_account(self) -> Result<ConnectionString, Error> {
        if self.proxy.is_some() {
            return Err(wrong(
                "`DevelopmentStorageProxyUri` needs `UseDevelopmentStorage=true`",
            ));
        }
        let protocol = match self.protocol.map(str::to_ascii_lowercase).as_deref() {
            None | Some("https") => "https",
            Some("http") => "http",
            Some(_) => {
                return Err(wrong(
                    "`DefaultEndpointsProtocol` is neither http nor https",
                ));
            }
        };
        let credential = match (self.key, self.sas) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "both `AccountKey` and `SharedAccessSignature`: use one",
                ));
            }
            (Some(key), None) => Credential::shared_key(key)?,
            (None, Some(token)) => Credential::sas(token)?,
            (None, None) => {
                return Err(wrong(
                    "it has neither `AccountKey` nor `SharedAccessSignature`; put it in quotes, \
                     since a shell cuts it at the first `;`",
                ));
            }
        };
        let endpoint = match (self.endpoint, self.account) {
            (Some(endpoint), _) => endpoint.to_owned(),
            (None, Some(account)) => {
                check_account(account)?;
                let suffix = self.suffix.unwrap_or("core.windows.net");
                if suffix.contains(['/', '@', ':', '?', '#']) {
                    return Err(wrong(
                        "`EndpointSuffix` is not a domain such as core.windows.net",
                    ));
                }
                let suffix = suffix.trim_start_matches('.').trim_start_matches("blob.");
                format!("{protocol}://{account}.blob.{suffix}")
            }
            (None, None) => return Err(wrong("`AccountName` is missing")),
        };
        // The signature holds the account's name.
        if self.account.is_none() && self.key.is_some() {
            return Err(wrong("`AccountName` is missing"));
        }
        Ok(ConnectionString {
            account: self.account.map(str::to_owned),
            endpoint,
            credential,
        })
    }

    fn into_development(self) -> Result<ConnectionString, Error> {
        let others = [
            self.protocol,
            self.account,
            self.key,
            self.sas,
            self.endpoint,
            self.suffix,
        ];
        if others.iter().any(Option::is_some) {
            return Err(wrong(
                "`UseDevelopmentStorage=true` names a whole account; leave out the other account \
                 parts",
            ));
        }
        let host = self
            .proxy
            .unwrap_or("http://127.0.0.1")
            .trim_end_matches('/');
        let port = host.rsplit(':').next().unwrap_or_default();
        let has_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if has_port { "" } else { ":10000" };
        Ok(ConnectionString {
            account: Some(EMULATOR_ACCOUNT.to_owned()),
            endpoint: format!("{host}{port}/{EMULATOR_ACCOUNT}"),
            credential: Credential::shared_key(EMULATOR_KEY)?,
        })
    }
}

/// The endpoints that are not used: those of other services, and those for reading only. `name` is
/// in lower case.
fn is_of_another_service(name: &str) -> bool {
    let services = ["blob", "queue", "table", "file", "dfs", "web"];
    services.iter().any(|service| {
        let rest = name.strip_prefix(service);
        rest.is_some_and(|rest| {
            rest == "secondaryendpoint" || (rest == "endpoint" && *service != "blob")
        })
    })
}

/// A part that is not ignored, since it may say that the locks are elsewhere.
fn unknown(name: &str) -> Error {
    let is_name = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    if !is_name {
        return wrong("a part has a name that connection strings of Azure Storage do not have");
    }
    wrong(&format!(
        "`{name}` is not a part of connection strings of Azure Storage; correct it or leave it out"
    ))
}

fn wrong(rule: &str) -> Error {
    Error::config(format!("invalid connection string: {rule}"))
}
