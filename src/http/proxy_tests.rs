use super::*;
use crate::error::ErrorKind;

const HTTPS: &str = "https://acct.blob.core.windows.net";
const HTTP: &str = "http://azurite.corp:10000";

type Variables = [(&'static str, &'static str)];

/// What an environment of these variables means for `origin`.
fn find(origin: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>, Error> {
    Proxy::find(origin, |name| {
        let mut all = variables.iter();
        all.find(|(n, _)| *n == name)
            .map(|(_, v)| OsString::from(v))
    })
}

fn shown(origin: &str, variables: &[(&str, &str)]) -> String {
    match find(origin, variables).unwrap_or_else(|error| panic!("{variables:?}: {error}")) {
        Some(proxy) => proxy.to_string(),
        None => "direct".to_owned(),
    }
}

#[test]
fn more_specific_variable_wins_and_an_empty_one_counts_as_not_set() {
    const A: &str = "http://a:1";
    const B: &str = "http://b:2";
    let rows: [(&str, &Variables, &str); 24] = [
        (HTTPS, &[], "direct"),
        (
            HTTPS,
            &[("HTTPS_PROXY", A)],
            "http://a:1 (from HTTPS_PROXY)",
        ),
        (
            HTTPS,
            &[("https_proxy", A)],
            "http://a:1 (from https_proxy)",
        ),
        (HTTPS, &[("ALL_PROXY", A)], "http://a:1 (from ALL_PROXY)"),
        (HTTPS, &[("all_proxy", A)], "http://a:1 (from all_proxy)"),
        (
            HTTPS,
            &[("ALL_PROXY", A), ("HTTPS_PROXY", B)],
            "http://b:2 (from HTTPS_PROXY)",
        ),
        (
            HTTPS,
            &[("all_proxy", A), ("HTTPS_PROXY", B)],
            "http://b:2 (from HTTPS_PROXY)",
        ),
        (
            HTTPS,
            &[("HTTPS_PROXY", A), ("https_proxy", B)],
            "http://b:2 (from https_proxy)",
        ),
        (
            HTTPS,
            &[("HTTPS_PROXY", ""), ("https_proxy", B)],
            "http://b:2 (from https_proxy)",
        ),
        (
            HTTPS,
            &[("https_proxy", ""), ("HTTPS_PROXY", B)],
            "http://b:2 (from HTTPS_PROXY)",
        ),
        (
            HTTPS,
            &[
                ("https_proxy", " \r"),
                ("HTTPS_PROXY", "''"),
                ("ALL_PROXY", B),
            ],
            "http://b:2 (from ALL_PROXY)",
        ),
        (
            HTTPS,
            &[("ALL_PROXY", A), ("all_proxy", B)],
            "http://b:2 (from all_proxy)",
        ),
        // Not the one for the other scheme.
        (HTTPS, &[("HTTP_PROXY", A), ("http_proxy", A)], "direct"),
        (HTTP, &[("HTTPS_PROXY", A), ("https_proxy", A)], "direct"),
        (HTTP, &[("http_proxy", A)], "http://a:1 (from http_proxy)"),
        (HTTP, &[("HTTP_PROXY", A)], "http://a:1 (from HTTP_PROXY)"),
        (HTTP, &[("ALL_PROXY", A)], "http://a:1 (from ALL_PROXY)"),
        (
            HTTP,
            &[("ALL_PROXY", A), ("HTTP_PROXY", B)],
            "http://b:2 (from HTTP_PROXY)",
        ),
        // In a CGI program the client of the web server sets HTTP_PROXY.
        (
            HTTP,
            &[("HTTP_PROXY", A), ("REQUEST_METHOD", "GET")],
            "direct",
        ),
        (
            HTTP,
            &[("HTTP_PROXY", A), ("REQUEST_METHOD", "")],
            "http://a:1 (from HTTP_PROXY)",
        ),
        (
            HTTP,
            &[
                ("HTTP_PROXY", A),
                ("http_proxy", B),
                ("REQUEST_METHOD", "GET"),
            ],
            "http://b:2 (from http_proxy)",
        ),
        (
            HTTP,
            &[
                ("HTTP_PROXY", A),
                ("all_proxy", B),
                ("REQUEST_METHOD", "GET"),
            ],
            "http://b:2 (from all_proxy)",
        ),
        (
            HTTPS,
            &[("HTTPS_PROXY", A), ("REQUEST_METHOD", "GET")],
            "http://a:1 (from HTTPS_PROXY)",
        ),
        // A proxy that is not used need not be in order.
        (
            HTTPS,
            &[("HTTPS_PROXY", "ftp://x"), ("NO_PROXY", "*")],
            "direct",
        ),
    ];
    for (origin, variables, expected) in rows {
        assert_eq!(shown(origin, variables), expected, "{origin} {variables:?}");
    }
}

#[test]
fn this_machine_is_never_reached_through_a_proxy() {
    let all =
        ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, "http://a:1"));
    for origin in [
        "http://127.0.0.1:10000",
        "http://127.8.9.1",
        "https://localhost:10000",
        "http://[::1]:10000",
        "http://devstoreaccount1.blob.localhost:10000",
        "http://LocalHost.:10000",
    ] {
        assert_eq!(shown(origin, &all), "direct", "{origin}");
    }
    assert_ne!(shown("http://localhost.example", &all), "direct");
}

#[test]
fn lists_of_exceptions_are_read_as_curl_and_go_read_them() {
    // Host, port, list, whether it is reached directly.
    let account = "acct.blob.core.windows.net";
    let rows = [
        (account, 443, "", false),
        (account, 443, "*", true),
        (account, 443, "example.com, *", true),
        (account, 443, account, true),
        (account, 443, "ACCT.Blob.Core.Windows.NET", true),
        (account, 443, "blob.core.windows.net", true),
        (account, 443, ".blob.core.windows.net", true),
        (account, 443, "*.blob.core.windows.net", true),
        (account, 443, "localhost, .blob.core.windows.net", true),
        (account, 443, "localhost .blob.core.windows.net", true),
        (account, 443, "localhost,\t.blob.core.windows.net\r", true),
        (account, 443, "localhost,,\n.blob.core.windows.net,", true),
        (account, 443, "localhost;.blob.core.windows.net", true),
        (account, 443, "blob.core.windows.net.", true),
        (account, 443, "net", true),
        (account, 443, "windows.ne", false),
        (account, 443, "lob.core.windows.net", false),
        (account, 443, "ob.core.windows.net", false),
        (account, 443, "x.acct.blob.core.windows.net", false),
        (account, 443, "acct.blob.core.windows.net:443", true),
        (account, 443, "acct.blob.core.windows.net:8443", false),
        (account, 8443, "acct.blob.core.windows.net:8443", true),
        (account, 443, ".windows.net:443", true),
        (account, 443, "*:443", true),
        (account, 443, "*:80", false),
        (account, 443, "acct.blob.core.windows.net:https", false),
        (account, 443, ".", false),
        (account, 443, "*.", false),
        (account, 443, ":443", false),
        (account, 443, "10.0.0.0/8", false),
        // A name is excepted with `.` before it, and not with `*.`.
        ("corp.example", 443, ".corp.example", true),
        ("corp.example", 443, "*.corp.example", false),
        ("corp.example.", 443, "corp.example", true),
        ("CORP.example", 443, "corp.example", true),
        ("10.1.2.3", 10000, "10.1.2.3", true),
        ("10.1.2.3", 10000, "10.1.2.3:10000", true),
        ("10.1.2.3", 10000, "10.1.2.3:443", false),
        ("10.1.2.3", 10000, "10.0.0.0/8", true),
        ("10.1.2.3", 10000, "0.0.0.0/0", true),
        ("10.1.2.3", 10000, "10.1.2.2/31", true),
        ("10.1.2.3", 10000, "10.1.2.3/32", true),
        ("10.1.2.3", 10000, "10.1.2.2/32", false),
        ("10.1.2.3", 10000, "11.0.0.0/8", false),
        ("10.1.2.3", 10000, "10.0.0.0/33", false),
        ("10.1.2.3", 10000, "10.0.0.0/x", false),
        ("10.1.2.3", 10000, "fd00::/8", false),
        ("10.1.2.3", 10000, "2.3", false),
        ("10.1.2.3", 10000, "*", true),
        ("[fd00::1]", 10000, "fd00::1", true),
        ("[fd00::1]", 10000, "[fd00::1]", true),
        ("[FD00:0:0::1]", 10000, "[fd00::1]:10000", true),
        ("[fd00::1]", 10000, "[fd00::1]:443", false),
        ("[fd00::1]", 10000, "fd00::/8", true),
        ("[fd00::1]", 10000, "[fd00::]/8", true),
        ("[fd00::1]", 10000, "fe00::/16", false),
        ("[fd00::1]", 10000, "::/0", true),
        ("[fd00::1]", 10000, "10.0.0.0/8", false),
    ];
    for (host, port, list, direct) in rows {
        assert_eq!(
            is_excepted(list, host, port),
            direct,
            "{host}:{port} `{list}`"
        );
    }
}

#[test]
fn list_of_exceptions_has_its_variables_too() {
    let proxy = ("HTTPS_PROXY", "http://a:1");
    for (exceptions, direct) in [
        (vec![("NO_PROXY", ".core.windows.net")], true),
        (vec![("no_proxy", ".core.windows.net")], true),
        (
            vec![("NO_PROXY", ""), ("no_proxy", ".core.windows.net")],
            true,
        ),
        (
            vec![("no_proxy", ""), ("NO_PROXY", ".core.windows.net")],
            true,
        ),
        (
            vec![("NO_PROXY", "\"localhost,.core.windows.net\"\r")],
            true,
        ),
        // As in curl.
        (vec![("NO_PROXY", "*"), ("no_proxy", "localhost")], false),
    ] {
        let variables = [vec![proxy], exceptions].concat();
        assert_eq!(
            shown(HTTPS, &variables) == "direct",
            direct,
            "{variables:?}"
        );
    }
}

#[test]
fn proxies_are_read_as_they_are_written() {
    let rows = [
        ("http://proxy:3128", "http://proxy:3128", None),
        ("proxy:3128", "http://proxy:3128", None),
        ("HTTP://Proxy.corp:3128/", "http://Proxy.corp:3128", None),
        ("http://proxy:3128/path?x#y", "http://proxy:3128", None),
        ("http://proxy_1", "http://proxy_1:80", None),
        ("socks5h://proxy", "socks5h://proxy:1080", None),
        ("SOCKS4://proxy", "socks4://proxy:1080", None),
        ("socks4a://10.0.0.7:9", "socks4a://10.0.0.7:9", None),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
        ("[::1]", "http://[::1]:80", None),
        // What a shell, an env file or another system left around it.
        ("http://proxy:3128\r", "http://proxy:3128", None),
        (" http://proxy:3128 \r\n", "http://proxy:3128", None),
        ("\"http://proxy:3128\"", "http://proxy:3128", None),
        ("'http://proxy:3128'\r", "http://proxy:3128", None),
        ("\u{feff}http://proxy:3128", "http://proxy:3128", None),
        // Credentials, encoded or not.
        ("http://u:p@proxy:1", "http://proxy:1", Some(("u", "p"))),
        ("u:p@proxy:1", "http://proxy:1", Some(("u", "p"))),
        ("http://u@proxy:1", "http://proxy:1", Some(("u", ""))),
        ("http://u:@proxy:1", "http://proxy:1", Some(("u", ""))),
        ("http://:p@proxy:1", "http://proxy:1", Some(("", "p"))),
        ("http://@proxy:1", "http://proxy:1", None),
        ("http://:@proxy:1", "http://proxy:1", None),
        (
            "http://CORP\\u:p@proxy:1",
            "http://proxy:1",
            Some(("CORP\\u", "p")),
        ),
        (
            "http://u%40x:p%3A%23@proxy:1",
            "http://proxy:1",
            Some(("u@x", "p:#")),
        ),
        (
            "http://u:p@ss@proxy:1",
            "http://proxy:1",
            Some(("u", "p@ss")),
        ),
        (
            "http://u@corp:p@proxy:1",
            "http://proxy:1",
            Some(("u@corp", "p")),
        ),
        ("http://u:p:q@proxy:1", "http://proxy:1", Some(("u", "p:q"))),
        ("http://u:p#q@proxy:1", "http://proxy:1", Some(("u", "p#q"))),
        (
            "http://u:1@2#3?4@proxy:1",
            "http://proxy:1",
            Some(("u", "1@2#3?4")),
        ),
        (
            "http://u:p/q?r@proxy:1/",
            "http://proxy:1",
            Some(("u", "p/q?r")),
        ),
        ("http://u:p q@proxy:1", "http://proxy:1", Some(("u", "p q"))),
        (
            "http://u:100%@proxy:1",
            "http://proxy:1",
            Some(("u", "100%")),
        ),
        ("http://u:ü+@proxy:1", "http://proxy:1", Some(("u", "ü+"))),
        (
            "socks5://u:p@proxy",
            "socks5://proxy:1080",
            Some(("u", "p")),
        ),
    ];
    for (text, place, credentials) in rows {
        let proxy = find(HTTPS, &[("HTTPS_PROXY", text)]);
        let proxy = proxy
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .unwrap();
        assert_eq!(
            proxy.to_string(),
            format!("{place} (from HTTPS_PROXY)"),
            "{text}"
        );
        let found = proxy
            .credentials
            .as_ref()
            .map(|(user, password)| (&***user, &***password));
        assert_eq!(found, credentials, "{text}");
    }
}

#[test]
fn proxies_that_cannot_be_read_are_refused_with_the_variable_and_without_the_value() {
    let rows = [
        ("ftp://s3cret:3128", "does not begin with http"),
        ("socks://s3cret", "which SOCKS it is"),
        ("htp:s3cret", "port is not a number"),
        ("http:/s3cret:3128", "`://` is not complete"),
        ("http//s3cret:3128", "`://` is not complete"),
        ("HTTPS//s3cret", "`://` is not complete"),
        ("socks5:/s3cret:1", "`://` is not complete"),
        ("http:s3cret:3128", "more than one port"),
        ("http://", "names no host"),
        ("://s3cret", "does not begin with http"),
        ("//s3cret:1", "names no host"),
        ("http://s3cret:", "port is not between"),
        ("http://s3cret:0", "port is not between"),
        ("http://s3cret:65536", "port is not between"),
        ("http://s3cret:99999999999", "port is not between"),
        ("http://s3cret:+80", "port is not a number"),
        ("http://s3cret:3128x", "port is not a number"),
        ("http://::1:3128", "goes into brackets"),
        ("http://[s3cret]:3128", "neither a name nor an address"),
        ("http://[::1]3128", "port is not a number"),
        ("http://s3 cret:3128", "neither a name nor an address"),
        ("http://s3cret,b:3128", "neither a name nor an address"),
        ("http://ü.s3cret:3128", "neither a name nor an address"),
        ("http://u:s3cret\r\n@proxy", "control character"),
        ("http://u:s3cret%ff@proxy", "not UTF-8"),
        ("http://u:s3cret@", "names no host"),
        // Either the password or the path has an `@`.
        (
            "http://proxy:3128/s3cret@x",
            "not clear where the password ends",
        ),
        (
            "http://u:12/s3cret@proxy:1",
            "not clear where the password ends",
        ),
        (
            "http://u:p@s/s3cret@proxy:1",
            "not clear where the password ends",
        ),
        ("socks4://u:s3cret@proxy", "SOCKS4 has no passwords"),
    ];
    for (text, rule) in rows {
        let error = find(HTTPS, &[("HTTPS_PROXY", text)]).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        let shown = format!("{error:?}");
        assert!(
            shown.starts_with("invalid HTTPS_PROXY: "),
            "{text}: {shown}"
        );
        assert!(shown.contains(rule), "{text}: {shown}");
        assert!(!shown.contains("s3cret"), "it shows a value: {shown}");
    }
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;

    let error = Proxy::find(HTTPS, |name| {
        (name == "ALL_PROXY").then(|| OsString::from_vec(b"http://u:s3cr\xffet@proxy".to_vec()))
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "invalid ALL_PROXY: it is not UTF-8");
}

#[test]
fn proxy_never_shows_its_password() {
    let proxy = find(HTTPS, &[("HTTPS_PROXY", "http://user:s3cret@proxy:3128")]);
    let proxy = proxy.unwrap().unwrap();
    for text in [
        format!("{proxy}"),
        format!("{proxy:?}"),
        format!("{proxy:#?}"),
    ] {
        assert_eq!(text, "http://proxy:3128 (from HTTPS_PROXY)");
    }
}
