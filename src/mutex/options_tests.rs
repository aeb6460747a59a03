use super::*;
use crate::ErrorKind;

const KEY: &str = "bXkgc2VjcmV0IGtleQ==";
const SAS: &str = "sv=2021-08-06&se=2999-01-01&sig=s3cret%3D";

fn parse(text: &str) -> Result<MutexOptions, Error> {
    MutexOptions::from_connection_string(text, "locks")
}

#[test]
fn connection_strings_give_the_endpoint_they_name() {
    let rows: [(String, &str, &str); 27] = [
        (
            format!("DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};"),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"),
            "https://acct.blob.core.chinacloudapi.cn",
            "",
        ),
        (
            format!("accountname=acct; ACCOUNTKEY={KEY} ;defaultendpointsprotocol=HTTP"),
            "http://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=https://locks.corp:8443/"),
            "https://locks.corp:8443",
            "",
        ),
        (
            format!(
                "BlobEndpoint=https://acct.z1.blob.storage.azure.net/;SharedAccessSignature={SAS}"
            ),
            "https://acct.z1.blob.storage.azure.net",
            "",
        ),
        (
            format!(
                "AccountName=devstoreaccount1;AccountKey={KEY};\
                 BlobEndpoint=http://127.0.0.1:4321/devstoreaccount1;\
                 QueueEndpoint=http://127.0.0.1:4322/devstoreaccount1"
            ),
            "http://127.0.0.1:4321",
            "/devstoreaccount1",
        ),
        (
            "UseDevelopmentStorage=true".into(),
            "http://127.0.0.1:10000",
            "/devstoreaccount1",
        ),
        (
            "usedevelopmentstorage=TRUE;DevelopmentStorageProxyUri=http://azurite".into(),
            "http://azurite:10000",
            "/devstoreaccount1",
        ),
        (
            format!("UseDevelopmentStorage=false;AccountName=acct;AccountKey={KEY}"),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite:4321/".into(),
            "http://azurite:4321",
            "/devstoreaccount1",
        ),
        // What copying, env files and mounted files add.
        (
            format!("\u{feff}AccountName=acct;;AccountKey={KEY};\r\n"),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("\"AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.blob.core.windows.net/\""),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("'AccountName=acct;AccountKey={KEY}'\n"),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("AccountName = \"acct\" ;\n AccountKey = '{KEY}' ;\r\n BlobEndpoint = \"https://acct.blob.core.windows.net\" "),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            "BlobEndpoint=https://acct.blob.core.windows.net;SharedAccessSignature=sv=1&amp;sig=a+b/c=".to_owned(),
            "https://acct.blob.core.windows.net",
            "",
        ),
        // Where accounts are.
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=HTTPS://ACCT.Blob.Core.Windows.NET:443//"),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!(
                "AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.blob.core.windows.net;\
                 BlobSecondaryEndpoint=https://acct-secondary.blob.core.windows.net;\
                 DfsEndpoint=https://acct.dfs.core.windows.net;WebEndpoint=https://acct.z6.web.core.windows.net;\
                 QueueSecondaryEndpoint=x;TableEndpoint=x;FileEndpoint=x"
            ),
            "https://acct.blob.core.windows.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.privatelink.blob.core.windows.net"),
            "https://acct.privatelink.blob.core.windows.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.z12.blob.storage.azure.net"),
            "https://acct.z12.blob.storage.azure.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};EndpointSuffix=core.usgovcloudapi.net"),
            "https://acct.blob.core.usgovcloudapi.net",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};EndpointSuffix=.core.cloudapi.de"),
            "https://acct.blob.core.cloudapi.de",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=http://acct.blob.localhost:10000/"),
            "http://acct.blob.localhost:10000",
            "",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=http://azurite:10000/acct/"),
            "http://azurite:10000",
            "/acct",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=http://[::1]:10000/acct"),
            "http://[::1]:10000",
            "/acct",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=https://storage.corp.example/acct"),
            "https://storage.corp.example",
            "/acct",
        ),
        (
            format!("BlobEndpoint=https://locks.corp.example;SharedAccessSignature={SAS}"),
            "https://locks.corp.example",
            "",
        ),
        (
            format!("BlobEndpoint=http://host.docker.internal:10000/devstoreaccount1;SharedAccessSignature={SAS}"),
            "http://host.docker.internal:10000",
            "/devstoreaccount1",
        ),
    ];
    for (text, origin, base) in rows {
        let options = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (&*options.endpoint.origin, &*options.endpoint.base),
            (origin, base)
        );
    }
}

#[test]
fn account_is_read_from_the_endpoint_of_a_sas() {
    let sas = format!("SharedAccessSignature={SAS}");
    let rows = [
        ("https://acct.blob.core.windows.net", "acct"),
        ("https://ACCT.blob.core.windows.net", "acct"),
        ("https://acct.z12.blob.storage.azure.net", "acct"),
        ("https://acct.privatelink.blob.core.windows.net/", "acct"),
        ("http://acct.blob.localhost:10000", "acct"),
        ("https://locks.corp.example", "locks"),
        (
            "http://127.0.0.1:10000/devstoreaccount1",
            "devstoreaccount1",
        ),
    ];
    for (endpoint, account) in rows {
        let options = parse(&format!("BlobEndpoint={endpoint};{sas}")).unwrap();
        assert_eq!(options.account, account);
    }
}

#[test]
fn connection_strings_are_refused_with_the_reason() {
    let rows: [(String, &str); 40] = [
        (
            String::new(),
            "neither `AccountKey` nor `SharedAccessSignature`",
        ),
        (
            "AccountName=acct".into(),
            "neither `AccountKey` nor `SharedAccessSignature`",
        ),
        (format!("AccountKey={KEY}"), "`AccountName` is missing"),
        (
            format!("AccountKey={KEY};BlobEndpoint=https://a.b"),
            "`AccountName` is missing",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};AccountName=other"),
            "appears twice",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};SharedAccessSignature={SAS}"),
            "use one",
        ),
        (
            format!("AccountName=;AccountKey={KEY}"),
            "`AccountName` is empty",
        ),
        (format!("acct;AccountKey={KEY}"), "has no `=`"),
        ("AccountName=acct;AccountKey=s3cret".into(), "not base64"),
        (
            format!("AccountName=ACCT;AccountKey={KEY}"),
            "invalid account name",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=ftp://x"),
            "use https",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=x"),
            "use a URL such as",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};DefaultEndpointsProtocol=s3cret"),
            "neither http nor https",
        ),
        (
            format!("UseDevelopmentStorage=true;AccountKey={KEY}"),
            "a whole account",
        ),
        ("UseDevelopmentStorage=yes".into(), "neither true nor false"),
        (
            format!("AccountName=acct;AccountKey={KEY};DevelopmentStorageProxyUri=http://x"),
            "needs `UseDevelopmentStorage=true`",
        ),
        (
            format!("BlobEndpoint=https://a.b/?{SAS};SharedAccessSignature={SAS}"),
            "it has a query",
        ),
        (
            format!("\"AccountName=acct;AccountKey={KEY}"),
            "remove the quotes",
        ),
        (
            format!(
                "AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.blob.core.windows.net\""
            ),
            "remove the quotes",
        ),
        (
            format!("AccountName='acct;AccountKey={KEY}"),
            "`AccountName` is not valid: it has quotes",
        ),
        (
            format!(
                "AccountName=acct;AccountKey={KEY};BlobEndpoint=https://acct.blob\n.core.windows.net"
            ),
            "`BlobEndpoint` has a line break inside",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpiont=https://other.example"),
            "`BlobEndpiont` is not a part",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};s3cret=="),
            "a part has a name that",
        ),
        (
            format!("AZURE_STORAGE_CONNECTION_STRING=AccountName=acct;AccountKey={KEY}"),
            "a variable's name in front of it",
        ),
        (
            "DefaultEndpointsProtocol=https".into(),
            "a shell cuts it at the first `;`",
        ),
        (
            "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s3cret)".into(),
            "Key Vault reference",
        ),
        (
            format!("https://acct.blob.core.windows.net/locks?{SAS}"),
            "a SAS URL",
        ),
        (SAS.into(), "a SAS token"),
        (KEY.into(), "an account key"),
        (
            "AccountName=acct;AccountKey=<your-key>".into(),
            "a placeholder",
        ),
        ("{{ s3cret }}".into(), "a placeholder"),
        ("$(s3cret)".into(), "a placeholder"),
        ("{\"connectionString\":\"s3cret\"}".into(), "JSON"),
        (
            // AccountName=acct;AccountKey=c2VjcmV0
            "QWNjb3VudE5hbWU9YWNjdDtBY2NvdW50S2V5PWMyVmpjbVYw".into(),
            "encoded in base64 once more",
        ),
        (
            "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=x;SharedAccessKey=s3cret"
                .into(),
            "for Service Bus",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};EndpointSuffix=https://core.windows.net"),
            "`EndpointSuffix` is not a domain",
        ),
        (
            format!("SharedAccessSignature={SAS}"),
            "`AccountName` is missing",
        ),
        (
            "AccountName=acct;SharedAccessSignature=sv=2021-08-06".into(),
            "cuts it at the first `&`",
        ),
        (
            "AccountName=acct;SharedAccessSignature=sv=1&se=2001-01-01&sig=s3cret".into(),
            "it expired",
        ),
        (
            format!("BlobEndpoint=https://own.example/acct;SharedAccessSignature={SAS}"),
            "whether its path `/acct` is the account or a container cannot be told",
        ),
    ];
    for (text, rule) in rows {
        let error = parse(&text).expect_err(&text);
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.to_string().contains(rule), "{text}: {error}");
        assert!(
            !error.to_string().contains("s3cret"),
            "shows a value: {error}"
        );
    }
}

#[test]
fn connection_strings_are_refused_as_they_are_pasted() {
    let whole = format!("AccountName=acct;AccountKey={KEY}");
    let rows = [
        (format!("{whole};\""), "remove the quotes"),
        (format!("{whole};'\r\n"), "remove the quotes"),
        (format!("`{whole}"), "remove the quotes"),
        (whole.replace(';', "\\;"), "backslashes before `;`"),
        (
            format!("export AZURE_STORAGE_CONNECTION_STRING='{whole}'"),
            "a variable's name in front of it",
        ),
        (
            format!("connectionString: {whole}"),
            "a variable's name in front of it",
        ),
        (
            whole.replace('=', "%3D").replace(';', "%3B"),
            "percent-encoded",
        ),
        ("%s3cret%".into(), "a placeholder"),
        ("akvs://s3cret/vault/name".into(), "a placeholder"),
        ("<!DOCTYPE html><p>s3cret</p>".into(), "an HTML page"),
    ];
    for (text, rule) in rows {
        let error = parse(&text).expect_err(&text).to_string();
        assert!(error.contains(rule), "{text}: {error}");
        assert!(!error.contains("s3cret"), "shows a value: {error}");
    }
    parse(&format!("`{whole}`")).unwrap();
}

/// The lock would be in a container of that name inside the container.
#[test]
fn endpoint_is_that_of_the_account_and_nothing_more() {
    let holds = "it holds the container, `locks`, which is given by itself; remove `/locks`";
    let other = "its path `/mycontainer` names a container, `mycontainer`, but the container in use \
                 is `locks`";
    for (url, rule) in [
        ("https://acct.blob.core.windows.net/locks", holds),
        ("https://acct.blob.core.windows.net/locks/", holds),
        (
            "https://acct.blob.core.windows.net/locks/deploy",
            "remove `/locks/deploy`",
        ),
        ("https://acct.blob.core.windows.net/mycontainer", other),
        (
            "https://acct.blob.core.windows.net/mycontainer/x",
            "names a container, `mycontainer`",
        ),
        (
            "https://acct.blob.core.windows.net/acct",
            "the account `acct` twice",
        ),
        (
            "https://acct.privatelink.blob.core.windows.net/locks",
            holds,
        ),
        ("https://acct.z12.blob.storage.azure.net/locks", holds),
        ("https://acct.blob.core.chinacloudapi.cn/locks", holds),
        ("http://acct.blob.localhost:10000/locks", holds),
        (
            "http://acct.blob.localhost:10000/acct",
            "the account `acct` twice",
        ),
        ("http://127.0.0.1:10000", "the path /acct is missing"),
        ("http://127.0.0.1:10000/", "the path /acct is missing"),
        ("http://[::1]:10000", "the path /acct is missing"),
        ("http://localhost:10000", "the path /acct is missing"),
        ("http://azurite:10000", "the path /acct is missing"),
        (
            "http://host.docker.internal:10000",
            "the path /acct is missing",
        ),
        ("http://127.0.0.1:10000/acct/locks", holds),
        (
            "http://127.0.0.1:10000/acct/acct",
            "the account `acct` twice",
        ),
        ("http://127.0.0.1:10000/locks", holds),
        (
            "http://azurite:10000/other",
            "an endpoint has the path `/acct` only",
        ),
        (
            "http://azurite:10000/acct2",
            "an endpoint has the path `/acct` only",
        ),
        ("https://own.example/locks", holds),
        ("https://own.example/acct/locks", holds),
        ("https://own.example/mycontainer", other),
        (
            "https://other.blob.core.windows.net",
            "it is for the account `other`, not `acct`",
        ),
        (
            "https://acct-secondary.blob.core.windows.net",
            "the secondary location",
        ),
        (
            "http://127.0.0.1:10000/acct-secondary",
            "the secondary location",
        ),
        (
            "https://acct.dfs.core.windows.net",
            "https://acct.blob.core.windows.net",
        ),
        (
            "https://acct.queue.core.windows.net",
            "another service (`queue`)",
        ),
        (
            "https://acct.z6.web.core.windows.net",
            "another service (`web`)",
        ),
    ] {
        let set = MutexOptions::new("acct", KEY, "locks")
            .unwrap()
            .endpoint(url);
        let parts = format!("AccountName=acct;AccountKey={KEY};BlobEndpoint={url}");
        for result in [set, parse(&parts)] {
            let error = result.expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(rule), "{url}: {error}");
        }
    }
    // As Storage Explorer exports it.
    for container in ["mycontainer", "locks"] {
        let text = format!(
            "SharedAccessSignature={SAS};BlobEndpoint=https://acct.blob.core.windows.net/mycontainer;"
        );
        let error = MutexOptions::from_connection_string(&text, container).unwrap_err();
        assert!(error.to_string().contains("`mycontainer`"), "{error}");
    }
}

/// An account that only the endpoint names, where there is none.
#[test]
fn endpoint_of_a_sas_that_names_no_account_is_refused_with_where_it_belongs() {
    let in_path = "the path with the account is missing, such as /devstoreaccount1";
    for (endpoint, rule) in [
        ("http://127.0.0.1:10000", in_path),
        ("http://azurite:10000/", in_path),
        (
            "http://127.0.0.1:10000/locks",
            "its path `/locks` is where the account is, and the container has the same name; if \
             the account has it too, name it (`AccountName=locks`)",
        ),
        (
            "https://blob.core.windows.net/acct",
            "it names no account; use https://ACCOUNT.blob.core.windows.net",
        ),
        (
            "https://a-b.blob.core.windows.net/locks",
            "it names no account; use https://ACCOUNT.blob.core.windows.net",
        ),
        (
            "https://core.usgovcloudapi.net",
            "it names no account; use https://ACCOUNT.blob.core.usgovcloudapi.net",
        ),
    ] {
        let text = format!("BlobEndpoint={endpoint};SharedAccessSignature={SAS}");
        let error = parse(&text).expect_err(endpoint).to_string();
        assert!(error.contains(rule), "{endpoint}: {error}");
    }
    let named = format!(
        "AccountName=locks;BlobEndpoint=http://127.0.0.1:1/locks;SharedAccessSignature={SAS}"
    );
    assert_eq!(parse(&named).unwrap().account, "locks");
}

#[test]
fn endpoints_are_refused_with_the_reason() {
    let options = MutexOptions::new("acct", KEY, "locks").unwrap();
    for (url, rule) in [
        ("", "use a URL"),
        (
            "acct.blob.core.windows.net",
            "`https://` in front of it is missing",
        ),
        ("\"https://host", "remove the quotes"),
        ("https://$(HOST)", "a placeholder"),
        ("/locks", "use a URL"),
        ("ftp://host", "use https"),
        ("https://user:s3cret@host", "user name or password"),
        ("https://host?sig=s3cret", "it has a query"),
        ("https://host:99999", "between 1 and 65535"),
        ("https://host:0", "between 1 and 65535"),
        ("https://host/a//b", "empty segment"),
        ("https://host/../b", "`.` or `..` as a segment"),
        ("https://ho st", "use a URL"),
    ] {
        let error = options.clone().endpoint(url).expect_err(url);
        assert!(error.to_string().contains(rule), "{url}: {error}");
        assert!(
            !error.to_string().contains("s3cret"),
            "shows a secret: {error}"
        );
    }
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let at = |url| {
        MutexOptions::new("acct", KEY, "locks")
            .unwrap()
            .endpoint(url)
            .unwrap()
    };
    for url in [
        "http://127.0.0.1:10000/acct",
        "http://localhost/acct",
        "http://[::1]:80/acct",
        "http://127.8.9.1/acct",
        "http://acct.blob.localhost:10000",
    ] {
        at(url).check().expect(url);
    }
    for url in [
        "http://acct.blob.core.windows.net",
        "http://10.0.0.7/acct",
        "http://localhost.example",
    ] {
        let error = at(url).check().expect_err(url);
        for part in [
            "plain http is for this machine only",
            "--allow-insecure-http",
            "AZMUTEX_ALLOW_INSECURE_HTTP=true",
            "MutexOptions::allow_insecure_http(true)",
        ] {
            assert!(error.to_string().contains(part), "no {part} in {error}");
        }
        at(url)
            .allow_insecure_http(true)
            .check()
            .expect("allowed on request");
    }
}

#[test]
fn https_without_tls_is_refused_with_the_feature_to_turn_on() {
    let options = MutexOptions::new("acct", KEY, "locks").unwrap();
    let error = options.check_transport(false).unwrap_err();
    assert!(
        error.to_string().contains("turn on its feature `rustls`"),
        "{error}"
    );
}

#[test]
fn request_timeout_of_zero_is_refused() {
    let options = MutexOptions::new("acct", KEY, "locks").unwrap();
    let error = options.request_timeout(Duration::ZERO).check().unwrap_err();
    assert!(
        error.to_string().contains("invalid request timeout 0"),
        "{error}"
    );
}

#[test]
fn names_are_checked_before_anything_else() {
    for (account, key, container, rule) in [
        ("", KEY, "locks", "invalid account name"),
        ("acct", "", "locks", "invalid account key"),
        ("acct", KEY, "", "invalid container name"),
        ("acct", KEY, "No", "invalid container name"),
    ] {
        let error = MutexOptions::new(account, key, container).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn environment_is_read_in_the_documented_order() {
    let from = |vars: &[(&str, &str)]| {
        MutexOptions::from_variables(
            |name| {
                Ok(vars
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| (*v).to_owned()))
            },
            "locks",
        )
    };
    let connection = format!("AccountName=first;AccountKey={KEY}");
    let account = ("AZURE_STORAGE_ACCOUNT", "second");
    let key = ("AZURE_STORAGE_KEY", KEY);
    let sas = ("AZURE_STORAGE_SAS_TOKEN", SAS);
    let all = [
        ("AZURE_STORAGE_CONNECTION_STRING", &*connection),
        account,
        key,
        sas,
    ];
    assert_eq!(from(&all).unwrap().account, "first");
    let options = from(&all[1..]).unwrap();
    assert_eq!(options.account, "second");
    assert_eq!(
        format!("{:?}", options.credential),
        "Credential(account key)"
    );
    let options = from(&[account, sas]).unwrap();
    assert!(format!("{:?}", options.credential).starts_with("Credential(SAS"));
    let shown = |vars: &[(&str, &str)]| format!("{:?}", from(vars).unwrap().credential);
    let (login, by_key) = (
        ("AZURE_STORAGE_AUTH_MODE", "login"),
        ("AZURE_STORAGE_AUTH_MODE", "Key"),
    );
    assert_eq!(shown(&[account]), "Credential(environment)");
    assert_eq!(shown(&[account, key, login]), "Credential(environment)");
    assert_eq!(shown(&[account, key, by_key]), "Credential(account key)");
    assert!(shown(&[account, sas, login]).starts_with("Credential(SAS"));
    let error = from(&[account, by_key]).unwrap_err().to_string();
    assert!(
        error.contains("neither AZURE_STORAGE_KEY nor AZURE_STORAGE_SAS_TOKEN"),
        "{error}"
    );
    let odd = ("AZURE_STORAGE_AUTH_MODE", "sas");
    let error = from(&[account, key, odd]).unwrap_err().to_string();
    assert!(error.contains("it is `login` or `key`"), "{error}");
    let error = from(&[key]).unwrap_err().to_string();
    assert!(
        error.contains("set AZURE_STORAGE_CONNECTION_STRING, or"),
        "{error}"
    );
    // Other names in use, in pairs that agree.
    let sas = format!("{SAS}\r\n");
    let quoted = format!("\"{KEY}\"");
    for row in [
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", "second"),
            ("AZURE_STORAGE_ACCESS_KEY", KEY),
        ],
        [account, ("AZURE_STORAGE_ACCOUNT_KEY", KEY)],
        [("AZURE_STORAGE_ACCOUNT", "\"second\"\r\n"), key],
        [account, ("AZURE_STORAGE_SAS", &sas)],
        [account, ("AZURE_STORAGE_KEY", &quoted)],
    ] {
        assert_eq!(from(&row).unwrap().account, "second", "{row:?}");
    }
    let same = [account, key, ("AZURE_STORAGE_ACCESS_KEY", KEY)];
    assert_eq!(from(&same).unwrap().account, "second");
    // As env files leave them: a value that is empty but for quotes or a line end is not set.
    let same = [account, key, ("AZURE_STORAGE_ACCESS_KEY", &quoted)];
    assert_eq!(from(&same).unwrap().account, "second");
    for empty in ["\r", "\"\"", "''\r\n", " "] {
        let rest = [
            ("AZURE_STORAGE_CONNECTION_STRING", empty),
            ("AZURE_STORAGE_ACCOUNT_NAME", empty),
            ("AZURE_STORAGE_KEY", empty),
            ("AZURE_STORAGE_AUTH_MODE", empty),
            account,
            ("AZURE_STORAGE_SAS_TOKEN", SAS),
        ];
        assert_eq!(from(&rest).unwrap().account, "second", "{empty:?}");
    }
    let by_key_quoted = ("AZURE_STORAGE_AUTH_MODE", "\"key\"\r");
    assert!(from(&[account, by_key_quoted]).is_err());
    let rows: [(&[(&str, &str)], &str); 10] = [
        (
            &[account, ("AZURE_STORAGE_ACCOUNT_NAME", "third"), key],
            "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCOUNT_NAME have different values",
        ),
        (
            &[account, key, ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")],
            "AZURE_STORAGE_KEY and AZURE_STORAGE_ACCOUNT_KEY have different values",
        ),
        (
            &[("ARM_ACCESS_KEY", KEY)],
            "ARM_ACCESS_KEY is set, but not read",
        ),
        (
            &[account, by_key, ("ARM_ACCESS_KEY", KEY)],
            "to use it, set AZURE_STORAGE_KEY to its value",
        ),
        (
            &[account, by_key, ("ARM_SAS_TOKEN", SAS)],
            "set AZURE_STORAGE_SAS_TOKEN to its value",
        ),
        (
            &[("AzureWebJobsStorage", &connection)],
            "AzureWebJobsStorage is set, but not read; to use it, set AZURE_STORAGE_CONN",
        ),
        (
            &[("AZURE_STORAGEBLOB_CONNECTIONSTRING", &connection)],
            "AZURE_STORAGEBLOB_CONNECTIONSTRING is set, but not read",
        ),
        (
            &[account, ("AZURE_STORAGE_ACCESS_KEY", "no")],
            "AZURE_STORAGE_ACCESS_KEY: invalid account",
        ),
        (
            &[account, ("AZURE_STORAGE_SAS", "no")],
            "AZURE_STORAGE_SAS: invalid SAS",
        ),
        (
            &[("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a")],
            "AZURE_STORAGE_CONNECTION_STRING: invalid connection string",
        ),
    ];
    for (variables, wanted) in rows {
        let error = from(variables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(wanted), "{variables:?}: {error}");
    }
}

#[test]
fn network_is_read_from_the_environment() {
    let from = |vars: &[(&str, &str)]| {
        MutexOptions::new("acct", KEY, "locks")
            .unwrap()
            .network_from(|name| {
                let mut all = vars.iter();
                Ok(all.find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
            })
    };
    assert!(!from(&[]).unwrap().allow_insecure_http);
    let insecure = "AZMUTEX_ALLOW_INSECURE_HTTP";
    for (value, expected) in [
        ("true", true),
        ("True", true),
        ("true\r", true),
        ("\"1\"", true),
        ("1", true),
        ("false", false),
        ("FALSE", false),
        ("0", false),
    ] {
        let options = from(&[(insecure, value)]).expect(value);
        assert_eq!(options.allow_insecure_http, expected, "{value}");
    }
    for value in ["yes", "on", "2", " ", "truth"] {
        let error = from(&[(insecure, value)]).expect_err(value);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.to_string(),
            format!("invalid {insecure} `{value}`: use true or false, 1 or 0")
        );
    }
    let error = from(&[("AZMUTEX_CA_FILE", "/missing/ca.pem")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("AZMUTEX_CA_FILE `/missing/ca.pem`: "),
        "{text}"
    );
    // This file has no certificate.
    let error = from(&[("AZMUTEX_CA_FILE", file!())]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("it has no certificate"), "{text}");
}

#[test]
fn debug_never_shows_a_secret() {
    for text in [
        format!("AccountName=acct;AccountKey={KEY}"),
        format!("AccountName=acct;SharedAccessSignature={SAS}"),
    ] {
        let shown = format!("{:?}", parse(&text).unwrap());
        assert!(
            !shown.contains("bXkg") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
