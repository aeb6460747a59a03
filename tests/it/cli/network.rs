//! Proxies, private CAs, plain http, and ports where nobody listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, process};

use azmutex::LeaseDuration;

use super::tool::{Done, Tool, bare, finish};
use crate::support::addr_of;
use crate::support::tunnel::{PrivateServer, Tunnel};

const KEY: &str = "czNjcmV0IG9mIHRoZSBhY2NvdW50";
const STATUS: [&str; 4] = ["status", "a", "--check", "held"];

fn with(args: &[&str], variables: &[(&str, &str)]) -> Done {
    let mut command = bare(args);
    // So that a failure that is retried does not take long.
    command.env("AZMUTEX_REQUEST_TIMEOUT", "1s");
    command.envs(variables.iter().copied());
    finish(command)
}

/// Variables for the tool's emulator as if it were at `host`, with `a` held in it.
fn emulator_at(tool: &Tool, host: &str) -> [(&'static str, String); 4] {
    let _ = tool.mutex().acquire("a", LeaseDuration::MAX);
    [
        ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1".to_owned()),
        ("AZURE_STORAGE_KEY", tool.emulator().key().to_owned()),
        (
            "AZMUTEX_ENDPOINT",
            format!("http://{host}/devstoreaccount1"),
        ),
        ("AZMUTEX_ALLOW_INSECURE_HTTP", "true".to_owned()),
    ]
}

fn all<'a>(
    some: &'a [(&'static str, String)],
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let some = some.iter().map(|(name, value)| (*name, &**value));
    some.chain(more.iter().copied()).collect()
}

fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn proxy_of_the_environment_carries_the_requests_however_it_is_written() {
    let tool = Tool::new();
    let tunnel = Tunnel::http(addr_of(tool.emulator()));
    let socks = Tunnel::socks5(addr_of(tool.emulator()));
    let account = emulator_at(&tool, "azurite.invalid:10000");
    let (good, bad) = (tunnel.addr.to_string(), format!("http://{}", closed_port()));
    let url = format!("http://{good}");
    for variables in [
        vec![("HTTP_PROXY", &*url)],
        vec![("http_proxy", &*url)],
        vec![("ALL_PROXY", &*url)],
        vec![("ALL_PROXY", &*bad), ("HTTP_PROXY", &*url)],
        vec![("HTTPS_PROXY", &*bad), ("HTTP_PROXY", &*url)],
        vec![("HTTP_PROXY", ""), ("http_proxy", &*url)],
        vec![("HTTP_PROXY", &*good)],
        vec![("HTTP_PROXY", &*format!("{url}\r"))],
        vec![("HTTP_PROXY", &*format!("\"{url}\""))],
        vec![("HTTP_PROXY", &*url), ("NO_PROXY", "localhost,.example")],
    ] {
        with(&STATUS, &all(&account, &variables)).exits(0);
        let asked = tunnel.asked();
        assert!(!asked.is_empty(), "not asked: {variables:?}");
        for head in asked {
            assert!(
                head.starts_with("CONNECT azurite.invalid:10000 HTTP/1.1\r\n"),
                "{head}"
            );
        }
    }
    let url = format!("http://user:s3@cret#@{good}");
    with(&STATUS, &all(&account, &[("HTTP_PROXY", &url)])).exits(0);
    // user:s3@cret#
    let sent = tunnel.asked().concat();
    assert!(sent.contains("Basic dXNlcjpzM0BjcmV0Iw==\r\n"), "{sent}");

    let url = format!("socks5h://{}", socks.addr);
    with(&STATUS, &all(&account, &[("ALL_PROXY", &url)])).exits(0);
    assert_eq!(socks.asked()[0], "azurite.invalid");
}

/// On Linux, 0.0.0.0 is this machine, but not called so.
#[cfg(target_os = "linux")]
#[test]
fn host_that_is_excepted_is_reached_directly() {
    let tool = Tool::new();
    let port = addr_of(tool.emulator()).port();
    let account = emulator_at(&tool, &format!("0.0.0.0:{port}"));
    let bad = format!("http://{}", closed_port());
    for list in [
        "0.0.0.0",
        "localhost, 0.0.0.0\r",
        "0.0.0.0/8",
        "*",
        &format!("0.0.0.0:{port}"),
    ] {
        let proxy = [("HTTP_PROXY", &*bad), ("NO_PROXY", list)];
        with(&STATUS, &all(&account, &proxy)).exits(0);
    }
    with(&STATUS, &all(&account, &[("HTTP_PROXY", &bad)]))
        .exits(69)
        .says(&format!(
            "proxy {} from HTTP_PROXY",
            &bad["http://".len()..]
        ));
}

#[test]
fn proxy_that_refuses_its_credentials_is_asked_once_and_named() {
    let tunnel = Tunnel::refusing("407 Proxy Authentication Required");
    let account = [
        ("AZURE_STORAGE_ACCOUNT", "acct".to_owned()),
        ("AZURE_STORAGE_KEY", KEY.to_owned()),
        ("AZMUTEX_REQUEST_TIMEOUT", "60s".to_owned()),
    ];
    for (user, says) in [
        (
            "",
            "the proxy asks for credentials (407); put them into HTTPS_PROXY",
        ),
        (
            "user:s3cret@",
            "the proxy does not accept its credentials (407); check user and password in HTTPS_PROXY",
        ),
    ] {
        let url = format!("http://{user}{}", tunnel.addr);
        let started = Instant::now();
        let done = with(&STATUS, &all(&account, &[("HTTPS_PROXY", &url)])).exits(69);
        assert!(!done.err.contains("s3cret"), "{done:?}");
        done.says(says)
            .says(&format!("proxy {} from HTTPS_PROXY", tunnel.addr));
        assert_eq!(tunnel.asked().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    for status in ["403 Forbidden", "502 Bad Gateway"] {
        let tunnel = Tunnel::refusing(status);
        let url = format!("http://{}", tunnel.addr);
        let proxy = [("HTTPS_PROXY", &*url), ("AZMUTEX_REQUEST_TIMEOUT", "300ms")];
        with(&STATUS, &all(&account[..2], &proxy))
            .exits(69)
            .says("the proxy did not make the connection: it answered ")
            .says(&status[..3])
            .says(&format!("proxy {} from HTTPS_PROXY", tunnel.addr));
    }
}

#[test]
fn proxy_that_cannot_be_read_is_refused_before_anything_is_sent() {
    let account = [
        ("AZURE_STORAGE_ACCOUNT", "acct".to_owned()),
        ("AZURE_STORAGE_KEY", KEY.to_owned()),
    ];
    for (url, says) in [
        (
            "ftp://s3cret:3128",
            "invalid HTTPS_PROXY: it does not begin with http",
        ),
        (
            "http://u:s3cret@proxy:x",
            "invalid HTTPS_PROXY: its port is not a number",
        ),
        (
            "http://proxy:1/s3cret@x",
            "invalid HTTPS_PROXY: it is not clear where",
        ),
    ] {
        let done = with(&STATUS, &all(&account, &[("HTTPS_PROXY", url)])).exits(78);
        assert!(!done.err.contains("s3cret"), "{done:?}");
        done.says(says);
    }
}

/// A status that the service gives.
const UNLOCKED: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Length: 0\r\nConnection: close\r\nETag: \"0x8D\"\r\nx-ms-request-id: 1\r\n\
    x-ms-version: 2021-12-02\r\nx-ms-lease-status: unlocked\r\nx-ms-lease-state: available\r\n\
    Last-Modified: Fri, 25 Oct 2019 18:13:24 GMT\r\n\r\n";

#[test]
#[cfg_attr(
    windows,
    ignore = "Wine says that revocation could not be checked where Windows says CERT_E_CHAINING"
)]
fn proxy_that_inspects_tls_is_trusted_if_its_ca_is_given() {
    let server = PrivateServer::start("acct.blob.core.windows.net", UNLOCKED);
    let tunnel = Tunnel::http(server.addr);
    let url = format!("http://{}", tunnel.addr);
    let account = [
        ("AZURE_STORAGE_ACCOUNT", "acct".to_owned()),
        ("AZURE_STORAGE_KEY", KEY.to_owned()),
        ("HTTPS_PROXY", url),
    ];
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ca-{}", process::id()));
    fs::write(&path, &server.ca).unwrap();
    let file = path.to_str().unwrap();
    let args = ["status", "a", "--check", "free"];
    with(
        &[&args[..], &["--ca-file", file]].concat(),
        &all(&account, &[]),
    )
    .exits(0);
    with(&args, &all(&account, &[("AZMUTEX_CA_FILE", file)])).exits(0);
    #[cfg(target_os = "linux")]
    with(&args, &all(&account, &[("SSL_CERT_FILE", file)])).exits(0);
    assert!(!tunnel.asked().is_empty());

    let done = with(&args, &all(&account, &[])).exits(69);
    for way in [
        "--ca-file",
        "AZMUTEX_CA_FILE",
        "MutexOptions::ca_certificates",
    ] {
        assert!(done.err.contains(way), "no {way} in {done:?}");
    }
    assert_eq!(tunnel.asked().len(), 1, "it would be refused again");

    fs::write(&path, "not a certificate").unwrap();
    with(&args, &all(&account, &[("AZMUTEX_CA_FILE", file)]))
        .exits(78)
        .says(&format!(
            "AZMUTEX_CA_FILE {file}: invalid CA certificates: it has no certificate"
        ));
    fs::remove_file(&path).unwrap();
    with(&args, &all(&account, &[("AZMUTEX_CA_FILE", file)]))
        .exits(78)
        .says(&format!("AZMUTEX_CA_FILE {file}: No such file"));
}

#[test]
fn plain_http_to_another_machine_is_refused_unless_it_is_allowed() {
    let tool = Tool::new();
    let tunnel = Tunnel::http(addr_of(tool.emulator()));
    let url = format!("http://{}", tunnel.addr);
    let account = emulator_at(&tool, "azurite:10000");
    let account = &account[..3];
    let insecure = "AZMUTEX_ALLOW_INSECURE_HTTP";
    for refused in ["false", "0", ""] {
        with(
            &STATUS,
            &all(account, &[("HTTP_PROXY", &url), (insecure, refused)]),
        )
        .exits(78)
        .says("refusing `http://azurite:10000`: plain http is for this machine only")
        .says("--allow-insecure-http, AZMUTEX_ALLOW_INSECURE_HTTP=true or")
        .says("MutexOptions::allow_insecure_http(true)");
    }
    assert!(tunnel.asked().is_empty());
    let option = [&STATUS[..], &["--allow-insecure-http"]].concat();
    for done in [
        with(&option, &all(account, &[("HTTP_PROXY", &url)])),
        with(
            &STATUS,
            &all(account, &[("HTTP_PROXY", &url), (insecure, "1")]),
        ),
        with(
            &STATUS,
            &all(account, &[("HTTP_PROXY", &url), (insecure, "TRUE")]),
        ),
    ] {
        let done = done.exits(0);
        assert_eq!(done.err.matches("is not encrypted").count(), 1, "{done:?}");
    }
    with(
        &STATUS,
        &all(account, &[("HTTP_PROXY", &url), (insecure, "yes")]),
    )
    .exits(2)
    .says("use true or false, 1 or 0");
}

#[test]
fn name_below_localhost_is_this_machine() {
    let tool = Tool::new();
    let port = addr_of(tool.emulator()).port();
    let account = emulator_at(&tool, &format!("locks.localhost:{port}"));
    let proxy = format!("http://{}", closed_port());
    let done = with(&STATUS, &all(&account[..3], &[("ALL_PROXY", &proxy)])).exits(0);
    assert_eq!(done.err, "");
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn port_where_nobody_listens_is_told_soon_and_with_what_may_be_missing() {
    let tool = Tool::new();
    let addr = closed_port();
    let account = emulator_at(&tool, &addr.to_string());
    for args in [
        &["status", "a"][..],
        &["acquire", "-n", "a"],
        &["run", "-n", "a", "true"],
    ] {
        let started = Instant::now();
        // With the default of 10 s for a request, and 60 s for failures.
        let more = [("AZMUTEX_REQUEST_TIMEOUT", "10s")];
        let done = with(args, &all(&account[..3], &more));
        let took = started.elapsed();
        assert!(took < Duration::from_secs(8), "{args:?}: {took:?}");
        let done = done
            .says("the connection was refused; is Azurite (or `azmutex emulator`) running? (")
            .says(&format!("{addr}, while connecting; "));
        assert!(done.err.contains(" attempts in "), "{done:?}");
    }
}
